#!/usr/bin/env bats
# Servers as Debian has them, ten rounds each: after every one a client asks, and finds what was there before.

load lib

need() {
	command -v "$1" >/dev/null || [[ -x $1 ]] || skip "$1 is not installed"
}

# As one who may not do what root may, where we are root: servers refuse to run as such.
as_user() {
	if ((EUID == 0)); then
		setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
	else
		"$@"
	fi
}

# Starts a server whose clients, not its output, tell when it is ready.
serve() {
	OUT=$DIR/out
	: >"$OUT"
	chmod 666 "$OUT"
	PID=$("$@")
	[[ $PID =~ ^[0-9]+$ ]]
}

# ten_rounds CHECK: CHECK ROUND asks the server, as a client.
ten_rounds() {
	local round
	"$1" 0
	for round in {1..10}; do
		dump_ok || fail "round $round" || return
		restore_ok || fail "round $round" || return
		"$1" "$round" || fail "round $round: the server does not answer as it should" || return
		rm -r "$IMG"
	done
}

# Outside bats' own, which another user may not enter.
setup() {
	DIR=$(mktemp -d "${TMPDIR:-/tmp}/crl-server.XXXXXX")
	chmod 777 "$DIR"
}

teardown() {
	clean_up
	rm -rf --one-file-system "${DIR:?}"
}

# Ends as its user would, so that its workers end with it.
end_server() {
	kill -"$1" "$PID"
	gone "$PID"
}

@test "redis" {
	need redis-server
	need redis-cli
	serve env "$MARK" "$PROGS/reaper" -b "$DIR/out" "$(command -v redis-server)" --port 0 \
		--unixsocket "$DIR/redis.sock" --save '' --dir "$DIR"
	ask() {
		[[ $(redis-cli -s "$DIR/redis.sock" incr rounds) == $(($1 + 1)) ]]
	}
	eventually redis-cli -s "$DIR/redis.sock" ping >/dev/null 2>&1
	ten_rounds ask
	end_server TERM
}

@test "postgres" {
	local bin
	bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)
	[[ -x $bin/postgres ]] || skip "postgres is not installed"
	as_user "$bin/initdb" -D "$DIR/data" -A trust -U test >/dev/null
	serve as_user env "$MARK" "$PROGS/reaper" -b "$DIR/out" "$bin/postgres" -D "$DIR/data" -k "$DIR" \
		-c listen_addresses=
	sql() {
		"$bin/psql" -h "$DIR" -U test -Atqc "$1" postgres
	}
	ask() {
		sql "insert into rounds values ($1)"
		[[ $(sql "select count(*) from rounds") == $(($1 + 1)) ]]
	}
	eventually sql "create table rounds (n int)" 2>/dev/null
	ten_rounds ask
	end_server INT
}

@test "nginx with two workers" {
	need nginx
	((EUID == 0)) || skip "its workers are another user's"
	cat >"$DIR/conf" <<-CONF
		worker_processes 2; pid $DIR/pid; error_log $DIR/error; daemon off;
		events {}
		http { access_log $DIR/access; server { listen unix:$DIR/sock; location / { return 200 "hello\n"; } } }
	CONF
	serve env "$MARK" "$PROGS/reaper" -b "$DIR/out" "$(command -v nginx)" -c "$DIR/conf"
	cat >"$DIR/client.py" <<-'PYTHON'
		import socket, sys
		s = socket.socket(socket.AF_UNIX)
		s.settimeout(60)
		s.connect(sys.argv[1])
		s.sendall(b"GET / HTTP/1.0\r\n\r\n")
		answer = b""
		while part := s.recv(4096):
		    answer += part
		print(answer.decode().strip())
	PYTHON
	ask() {
		[[ $("$(python)" "$DIR/client.py" "$DIR/sock") == *hello ]]
	}
	eventually ask 0 2>/dev/null
	ten_rounds ask
	end_server TERM
}

@test "memcached" {
	need memcached
	serve as_user env "$MARK" "$PROGS/reaper" -b "$DIR/out" "$(command -v memcached)" -s "$DIR/sock" -a 0777
	ask() {
		"$(python)" - "$DIR/sock" "$1" <<-'PYTHON'
			import socket, sys
			s = socket.socket(socket.AF_UNIX)
			s.settimeout(60)
			s.connect(sys.argv[1])
			f = s.makefile("rwb")
			n = int(sys.argv[2])
			if n:
			    f.write(b"get round\r\n")
			    f.flush()
			    assert f.readline().startswith(b"VALUE")
			    assert int(f.readline()) == n - 1
			    assert f.readline() == b"END\r\n"
			f.write(b"set round 0 0 %d\r\n%d\r\n" % (len(str(n)), n))
			f.flush()
			assert f.readline() == b"STORED\r\n"
		PYTHON
	}
	eventually test -S "$DIR/sock"
	ten_rounds ask
	end_server TERM
}

@test "python asyncio with a server and timers" {
	cat >"$DIR/server.py" <<-'PYTHON'
		import asyncio, sys
		ticks = 0

		async def tick():
		    global ticks
		    while True:
		        await asyncio.sleep(0.01)
		        ticks += 1

		async def answer(reader, writer):
		    before = ticks
		    while ticks <= before:
		        await asyncio.sleep(0.01)
		    line = await reader.readline()
		    writer.write(b"answer to " + line)
		    await writer.drain()
		    writer.close()

		async def main():
		    server = await asyncio.start_unix_server(answer, sys.argv[1])
		    task = asyncio.create_task(tick())
		    await server.serve_forever()

		asyncio.run(main())
	PYTHON
	serve env "$MARK" "$PROGS/reaper" -b "$DIR/out" "$(python)" "$DIR/server.py" "$DIR/sock"
	ask() {
		"$(python)" - "$DIR/sock" "$1" <<-'PYTHON'
			import socket, sys
			s = socket.socket(socket.AF_UNIX)
			s.settimeout(60)
			s.connect(sys.argv[1])
			s.sendall(sys.argv[2].encode() + b"\n")
			assert s.makefile("rb").readline() == b"answer to " + sys.argv[2].encode() + b"\n"
		PYTHON
	}
	eventually test -S "$DIR/sock"
	ten_rounds ask
	end_server TERM
}
