#!/usr/bin/env bats
# The build: what gets into the binary, what is made again after an edit, and what is refused.
#
# All of it in copies of the tree, because it edits sources and spoils them on purpose.

bats_require_minimum_version 1.5.0

TREE=$BATS_TEST_DIRNAME/..

setup_file() {
	# Not the options and the job server of the make that runs the tests.
	unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES V CFLAGS LDFLAGS
	export LC_ALL=C
	copy_tree "$BATS_FILE_TMPDIR/one"
	copy_tree "$BATS_FILE_TMPDIR/another/place"
	make -s -j2 -C "$BATS_FILE_TMPDIR/one" progs all
}

setup() {
	cd "$BATS_FILE_TMPDIR/one" || return
}

copy_tree() {
	mkdir -p "$1/t"
	(cd "$TREE" && cp -r Makefile asm include ld pie src "$1" && cp -r t/prog "$1/t")
}

fail() {
	printf '%s\n' "$@" >&2
	return 1
}

# value FILE SYMBOL, in decimal
value() {
	local hex
	hex=$(nm "$1" | awk -v name="$2" '$3 == name { print $1 }')
	[[ $hex ]] || fail "$1 has no symbol $2" || return
	echo $((16#$hex))
}

@test "the bytes between a blob's symbols are its .bin file" {
	for blob in parasite restorer; do
		start=$(value build/criu-lite ${blob}_blob_start)
		end=$(value build/criu-lite ${blob}_blob_end)
		read -r address offset < <(readelf -SW build/criu-lite | sed 's/^ *\[ *[0-9]*\]//' |
			awk '$1 == ".rodata" { print $3, $4 }')
		tail -c +$((start - 16#$address + 16#$offset + 1)) build/criu-lite | head -c $((end - start)) >bytes
		[[ -s bytes ]]
		cmp bytes build/pie/$blob.built-in.bin
		((start % 4096 == 0))
	done
}

@test "a .bin is the whole blob: code, data, bss and stack, up to __export_end" {
	for blob in parasite restorer; do
		data=$(value build/pie/$blob.built-in.bin.o __export_data)
		end=$(value build/pie/$blob.built-in.bin.o __export_end)
		(($(stat -c %s build/pie/$blob.built-in.bin) == end))
		((0 < data && data < end && data % 4096 == 0 && end % 4096 == 0))
	done
}

@test "the offsets in a header are what nm says, and there is nothing else in it" {
	for blob in parasite restorer; do
		nm build/pie/$blob.built-in.bin.o | awk -v blob=$blob '$3 ~ /^__export_/ {
			print "#define " blob "_blob_offset__" $3 " 0x" $1 }' | sort >want
		grep -v '^/\*.*\*/$' build/include/$blob-offsets.h | sort >have
		diff want have
		grep -q __export_data have
	done
	(($(wc -l <have) > 2))
}

@test "two clean builds in different folders are the same, byte for byte" {
	there=$BATS_FILE_TMPDIR/another/place
	make -s -j2 -C "$there"
	for file in criu-lite pie/{parasite,restorer}.built-in.bin include/{parasite,restorer}-offsets.h; do
		cmp build/"$file" "$there/build/$file"
	done
	run ! grep -q "$BATS_FILE_TMPDIR" build/criu-lite
}

@test "a second make does nothing" {
	make -q all progs
	run -0 make
	[[ $output == "make: Nothing to be done for 'all'." ]]
}

@test "one line says what is being made; V=1 shows the commands" {
	rm build/pie/lib.o
	run -0 make build/pie/lib.o
	[[ $output == "  CC       pie/lib.o" ]]
	rm build/pie/lib.o
	run -0 make V=1 build/pie/lib.o
	[[ $output == "gcc "*" -o build/pie/lib.o pie/lib.c" ]]
	make -s
}

# What making it again must print, for a source of these blobs.
steps() {
	local object=$1 how=$2 blob
	shift 2
	printf '  %-8s %s\n' "$how" "$object" AS asm/blobs.o LINK criu-lite
	for blob; do
		printf '  %-8s %s\n' LINK "pie/$blob.built-in.o" GEN "pie/$blob.built-in.bin.o" \
			GEN "pie/$blob.built-in.bin" GEN "$blob-offsets.h"
	done
}

@test "an edit of any source of a blob makes that blob, blobs.o and the binary again, nothing else" {
	for source in pie/*.[cS]; do
		case $source in
		pie/lib.c) blobs=(parasite restorer) ;;
		pie/parasite*) blobs=(parasite) ;;
		*) blobs=(restorer) ;;
		esac
		how=CC
		[[ $source == *.c ]] || how=AS
		echo '/* edited */' >>"$source"
		diff <(steps "${source%.*}.o" $how "${blobs[@]}" | sort) <(make | sort) ||
			fail "... after an edit of $source"
	done
}

@test "a blob's symbol that moves makes those again who know its offset, and no others" {
	printf 'extern int __export_added;\nint __export_added;\n' >pie/parasite-added.c
	make >log
	grep -q __export_added build/include/parasite-offsets.h
	have=$(grep -oE 'src/.*\.o$' log | sort)
	want=$(grep -lE 'parasite-offsets\.h' -r build/src --include='*.d' | sed 's|^build/||; s|d$|o|' | sort)
	[[ $want && $have == "$want" ]] || fail "made: $have" "expected: $want"
	run ! grep -q restorer log
	rm pie/parasite-added.c
	make >log
	run ! grep -q __export_added build/include/parasite-offsets.h
}

@test "no program enters as an array of numbers" {
	run ! grep -rnE '(0[xX][0-9a-fA-F]{1,2}[uU]?, *){8}' asm include ld pie src build/include
	run ! grep -rnE '\.(byte|long|quad)[[:space:]]+0x[0-9a-fA-F]+(, *0x[0-9a-fA-F]+){3}' asm pie src
	run ! grep -rnE '(\\x[0-9a-fA-F]{2}){8}' include pie src
}

# refused WORD…: with what stdin adds to the parasite, the build fails with one line that has all these words.
refused() {
	local suffix=$1 word lines
	shift
	cat >"pie/parasite-bad$suffix"
	refuses_to_build "$@"
}

refuses_to_build() {
	local word
	if make build/pie/parasite.built-in.bin >out 2>err; then
		fail "built all the same"
	fi
	mapfile -t lines < <(grep -vE '^make: ' err)
	((${#lines[@]} == 1)) || fail "${#lines[@]} lines:" "${lines[@]}"
	for word; do
		[[ ${lines[0]} == *"$word"* ]] || fail "no \"$word\" in: ${lines[0]}"
	done
	# What was refused must not pass for made the next time.
	if make build/pie/parasite.built-in.bin >out 2>err; then
		fail "built, when tried again"
	fi
}

# A tree for a spoiled source, with all that is not spoiled already built.
spoil() {
	cp -r "$BATS_FILE_TMPDIR/one" "$BATS_TEST_TMPDIR/spoiled"
	cd "$BATS_TEST_TMPDIR/spoiled" || return
}

@test "refused: an undefined symbol" {
	spoil
	refused .c "undefined" "missing_function" <<-'END'
		int missing_function(void);
		int bad(void);
		int bad(void) { return missing_function() + 1; }
	END
}

@test "refused: an undefined symbol, though weak" {
	spoil
	refused .S "undefined" "missing_weakly" <<-'END'
		.weak missing_weakly
		lea missing_weakly(%rip), %rax
		.section .note.GNU-stack, "", @progbits
	END
}

@test "refused: a relocation left over, in a table of addresses" {
	spoil
	refused .c "relocation" "R_X86_64_64" "pointed_at" ".data" <<-'END'
		int pointed_at[4];
		extern int *const table[];
		int *const table[] = { pointed_at, pointed_at + 1 };
	END
}

@test "refused: a relocation left over, in code" {
	spoil
	refused .S "relocation" "R_X86_64_32S" "pointed_at" ".text" <<-'END'
		mov $pointed_at, %rax
		.data
		.globl pointed_at
		pointed_at: .quad 0
		.section .note.GNU-stack, "", @progbits
	END
}

@test "refused: thread-local storage" {
	spoil
	refused .c "relocation" "TPOFF" "counter" <<-'END'
		static __thread int counter;
		int bad(void);
		int bad(void) { return counter++; }
	END
}

@test "refused: a GOT, for a symbol of default visibility" {
	spoil
	refused .c "GOT" "far_away" <<-'END'
		__attribute__((visibility("default"))) int far_away(void);
		void *bad(void);
		void *bad(void) { return (void *)far_away; }
	END
}

@test "refused: a GOT with contents" {
	spoil
	refused .S "GOT" "section .got " <<-'END'
		.section .got, "aw", @progbits
		.quad 1
		.section .note.GNU-stack, "", @progbits
	END
}

@test "refused: an unknown section" {
	spoil
	refused .c ".strange" <<-'END'
		int bad __attribute__((section(".strange"))) = 1;
	END
}

@test "refused: code and data on one page" {
	spoil
	sed -i 's/\.data ALIGN(0x1000) :/.data :/' ld/blob.lds
	refuses_to_build "code and data on one page" ".text" ".data"
}

@test "refused: code and data in one section" {
	spoil
	sed -i 's/\*(\.head\.text)/& *(.data.mixed)/' ld/blob.lds
	echo 'int some_data __attribute__((section(".data.mixed"))) = 1;' >pie/parasite-bad.c
	refuses_to_build "code and data" "some_data"
}
