#!/usr/bin/env bats
# The image as such: what it looks like, who may read it, and that reading it trusts nothing.

load lib

BAD() {
	printf '%s/bad' "$BATS_TEST_TMPDIR"
}

fresh_copy() {
	rm -rf "$(BAD)"
	cp -a "$IMG" "$(BAD)"
}

small_image() {
	start threads 2
	dump_ok "$@"
}

# Alters one image in place: `alter DIR list` prints FILE OFFSET REGION for a byte in each region of each file;
# `alter DIR flip FILE OFFSET`; `alter DIR poke FILE OFFSET HEX` writes bytes and then puts all sums right but the contents'.
alter() {
	python3 - "$@" <<-'PYTHON'
		import re, struct, sys

		def crc32c(data):
		    crc = 0xffffffff
		    for byte in data:
		        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
		    return crc ^ 0xffffffff

		def entry(c):
		    for _ in range(8):
		        c = c >> 1 ^ (0x82f63b78 if c & 1 else 0)
		    return c

		TABLE = [entry(b) for b in range(256)]
		LINE = re.compile(r"^file (\S+) length (\d+) contents (\d+) (\d+) crc [0-9a-f]{8}$", re.M)
		where, what, *args = sys.argv[1:]
		manifest = open(f"{where}/manifest").read()
		files = {m[1]: tuple(map(int, m.groups()[1:])) for m in LINE.finditer(manifest)}

		def regions(name):
		    length, start, end = files[name]
		    data = open(f"{where}/{name}", "rb").read()
		    count = struct.unpack_from("<H", data, 56)[0]
		    headers = [struct.unpack_from("<IIQQQQQQ", data, 64 + 56 * i) for i in range(count)]
		    notes = headers[0]
		    yield 4, "header"
		    yield 60, "header"
		    yield 64 + 8, "program-header"
		    yield 64 + 56 * count - 1, "program-header"
		    yield notes[2], "note"
		    yield notes[2] + notes[5] // 2, "note"
		    yield notes[2] + notes[5] - 1, "note"
		    if notes[2] + notes[5] < start:
		        yield start - 1, "padding"
		    if end > start:
		        yield start, "contents"
		        yield (start + end) // 2, "contents"
		        yield end - 1, "contents"
		        yield end + 2, "sums"
		        yield length - 1, "sums"

		def write(name, offset, data):
		    with open(f"{where}/{name}", "r+b") as f:
		        f.seek(offset)
		        f.write(data)

		if what == "list":
		    for name in files:
		        for offset, region in regions(name):
		            print(name, offset, region)
		    for offset in 3, len(manifest) // 2, len(manifest) - 20, len(manifest) - 3:
		        print("manifest", offset, "manifest")
		elif what == "flip":
		    name, offset = args[0], int(args[1])
		    byte = open(f"{where}/{name}", "rb").read()[offset]
		    write(name, offset, bytes([byte ^ 0x10]))
		elif what == "poke":
		    name, offset = args[0], int(args[1])
		    write(name, offset, bytes.fromhex(args[2]))
		    length, start, end = files[name]
		    data = open(f"{where}/{name}", "rb").read()
		    crc = crc32c(data[:start] + data[end:])
		    line = f"file {name} length {length} contents {start} {end} crc {crc:08x}"
		    body = manifest[:manifest.rindex("sum ")]
		    body = re.sub(rf"^file {re.escape(name)} .*$", line, body, flags=re.M)
		    open(f"{where}/manifest", "w").write(f"{body}sum {crc32c(body.encode()):08x}\n")
	PYTHON
}

@test "one altered byte in any region of any file: restore fails and names the file" {
	small_image
	local name offset region seen=
	while read -r name offset region; do
		fresh_copy
		alter "$(BAD)" flip "$name" "$offset"
		refused 1 "$name" -- restore -D "$(BAD)" -d || fail "... $region of $name, offset $offset"
		gone "$PID"
		seen+=" $region"
	done < <(alter "$IMG" list)
	for region in header program-header note padding contents sums manifest; do
		[[ " $seen " == *" $region "* ]] || fail "no byte of a $region was altered"
	done
	restore_ok
	check_target
}

@test "damage outside the contents is an error for show as well, and no half output" {
	small_image
	local name offset region
	while read -r name offset region; do
		[[ $region != contents ]] || continue
		fresh_copy
		alter "$(BAD)" flip "$name" "$offset"
		refused 1 "$name" -- show "$(BAD)"
		refused 1 "$name" -- show --json "$(BAD)"
	done < <(alter "$IMG" list)
}

@test "a forged image, all sums right: lengths, offsets and counts are checked all the same" {
	small_image
	local core=core.$PID
	poked() {
		fresh_copy
		alter "$(BAD)" poke "$core" "$1" "$2"
		refused 1 "$core" -- restore -D "$(BAD)" -d || fail "... $3"
		refused 1 "$core" -- show "$(BAD)" || fail "... $3"
		gone "$PID"
	}
	local load=$((64 + 56)) notes
	notes=$(python3 -c 'import struct, sys; print(struct.unpack_from("<Q", open(sys.argv[1], "rb").read(), 72)[0])' "$IMG/$core")
	poked 18 0300 "a machine other than x86_64"
	poked 56 0000 "no program headers"
	poked 56 feff "more program headers than there is room for"
	poked 56 ffff "PN_XNUM without a section header"
	poked 72 ffffffffffffff7f "notes that begin behind the file"
	poked 96 ffffffffffffffff "notes of 2^64 bytes"
	poked "$load" 06000000 "a segment of another type"
	poked $((load + 8)) 0000000000000000 "a segment that lies over the header"
	poked $((load + 16)) 01 "a segment that begins within a page"
	poked $((load + 16)) 00f0ffffffffffff "a segment that goes round the end of memory"
	poked $((load + 16)) 00f0ffffff7f0000 "a segment above the next"
	poked $((load + 32)) 0000000000000080 "a segment of 2^63 bytes"
	poked "$notes" ffffffff "a note's owner of 4 GiB"
	poked $((notes + 4)) ffffffff "a note of 4 GiB"
	restore_ok
	check_target
}

@test "a strange comm reaches no terminal as it is" {
	start "$(python)" -c '
import os, signal, sys
open("/proc/self/comm", "wb").write(b"a\x1b[2J\xff\n\"x")
print("ready", flush=True)
while True: signal.pause()'
	dump_ok
	crl_ok show "$IMG"
	grep -qF 'a\x1b[2J\xff\n\"x' "$STDOUT"
	# The line's ends are the only bytes below a space.
	[[ -z $(tr -d '\n -~' <"$STDOUT" | head -c 100) ]]
	crl_ok show "$IMG" --json
	python3 -m json.tool "$STDOUT" >/dev/null
}

@test "show --json is one document with what there is" {
	small_image -R
	crl_ok show "$IMG" --json
	python3 -c '
import json, sys
image, pid = json.load(open(sys.argv[1])), int(sys.argv[2])
files = {f["name"]: f for f in image["files"]}
tree, core = files["tree"]["records"], files[f"core.{pid}"]["records"]
def of(records, kind): return [r for r in records if r["type"] == kind]
assert of(tree, "tree")[0]["root_pid"] == pid
assert [p["pid"] for p in of(tree, "process")] == [pid]
assert of(core, "task")[0]["pid"] == pid
threads = of(core, "thread")
assert len(threads) == of(core, "task")[0]["threads"] and threads[0]["tid"] == pid, threads
assert all(int(t["regs"]["rip"], 16) for t in threads)
vmas = of(core, "vma")
starts = [int(v["start"], 16) for v in vmas]
assert starts == sorted(starts)
saved = sum(v["saved_pages"] for v in vmas)
assert saved * 4096 == files[f"core.{pid}"]["contents_length"], saved
assert {0, 1, 2} <= {f["fd"] for t in of(core, "fdtable") for f in t["fds"]}
' "$STDOUT" "$PID"
	check_target
}

@test "files are 0600 and the directory 0700, whatever the umask and the directory had" {
	need_root "a directory of mode 0"
	start threads 2
	local mask
	local dir=$BATS_TEST_TMPDIR/img
	for mask in 000 0777; do
		(umask "$mask" && "$CRIU_LITE" dump -t "$PID" -D "$dir" -R)
		[[ $(stat -c %a "$dir") == 700 ]]
		[[ $(stat -c %a "$dir"/* | sort -u) == 600 ]]
		rm -rf "$dir"
	done
	mkdir -m 0755 "$dir"
	crl_ok dump -t "$PID" -D "$dir" -R
	[[ $(stat -c %a "$dir") == 700 ]]
}

@test "not an image: a missing directory, a file, no manifest, wrong usage" {
	small_image -R
	refused 1 nowhere "No such file" -- show "$BATS_TEST_TMPDIR/nowhere"
	refused 1 "not an image" "not a directory" -- show "$IMG/manifest"
	rm "$IMG/manifest"
	refused 1 "not an image" "no manifest" -- show "$IMG"
	local status=0
	crl show || status=$?
	((status == 2))
	crl show "$IMG" --jsn || status=$?
	((status == 2))
}

@test "--replace puts a new image in the place of an old one, and of nothing else" {
	small_image -R
	local before beside
	before=$(stat -c %i "$IMG")
	refused 1 "$IMG" "--replace" -- dump -t "$PID" -D "$IMG" -R
	crl_ok dump -t "$PID" -D "$IMG" -R --replace
	[[ $(stat -c %i "$IMG") != "$before" ]]
	crl_ok show "$IMG"
	beside=$(find "$BATS_TEST_TMPDIR" -maxdepth 1 -name '.criu-lite*')
	[[ -z $beside ]]
	# What an interrupted dump has left may be replaced as well.
	rm "$IMG/manifest"
	crl_ok dump -t "$PID" -D "$IMG" -R --replace
	echo precious >"$IMG/letter"
	refused 1 letter -- dump -t "$PID" -D "$IMG" -R --replace
	[[ $(cat "$IMG/letter") == precious ]]
	crl_ok show "$IMG"
}
