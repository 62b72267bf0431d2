#!/usr/bin/env bats
# Programs that people run, ten rounds each: what they do goes on, with everything that their processes share.

load lib

# The signal that makes the running program check itself; node keeps SIGUSR1 for its debugger.
ask() {
	local lines
	mapfile -t lines <"$OUT"
	kill -"$1" "$PID" || fail "pid $PID is not there" || return
	wait_for_line "${#lines[@]}" || return
	[[ $LINE == "ok ${#lines[@]}" ]] || fail "pid $PID: $LINE"
}

ten_rounds() {
	local round
	for round in {1..10}; do
		dump_ok || fail "round $round" || return
		restore_ok || fail "round $round" || return
		ask "$1" || fail "round $round" || return
		rm -r "$IMG"
	done
}

# Up to ten rounds of a program that ends by itself, and its end; ROUNDS: how many there were.
rounds_until_end() {
	for ((ROUNDS = 0; ROUNDS < 10; ROUNDS++)); do
		IMG=$BATS_TEST_TMPDIR/round.$ROUNDS
		# It may end at any moment, and then there is nothing to dump.
		is_alive "$PID" || break
		if ! crl dump -t "$PID" -D "$IMG"; then
			! is_alive "$PID" || fail "$(cat "$STDERR")" || return
			break
		fi
		gone "$PID" && restore_ok || return
		rm -r "$IMG"
	done
	gone "$PID"
}

need() {
	command -v "$1" >/dev/null || skip "$1 is not installed"
}

@test "bash with a pipeline and background jobs" {
	cat >"$BATS_TEST_TMPDIR/jobs.sh" <<-'BASH'
		n=0
		check() {
			local before=$(wc -l <count) pid
			for pid in $(jobs -p); do
				kill -0 "$pid" || { echo "FAIL: job $pid is not there"; return; }
			done
			while (($(wc -l <count) <= before + 2)); do sleep 0.01; done
			n=$((n + 1))
			echo "ok $n"
		}
		trap check USR1
		: >count
		while :; do echo tick; sleep 0.01; done | while read -r word; do echo "$word" >>count; done &
		sleep 1000 &
		echo ready
		while :; do wait; done
	BASH
	start "$(command -v bash)" "$BATS_TEST_TMPDIR/jobs.sh"
	ask USR1
	ten_rounds USR1
}

@test "python multiprocessing with a pool and queues" {
	cat >"$BATS_TEST_TMPDIR/pool.py" <<-'PYTHON'
		import multiprocessing, os, signal

		def square(x):
		    return x * x

		def echo(questions, answers):
		    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
		    while True:
		        answers.put((os.getpid(), questions.get()))

		if __name__ == "__main__":
		    n = 0
		    questions, answers = multiprocessing.Queue(), multiprocessing.Queue()
		    worker = multiprocessing.Process(target=echo, args=(questions, answers), daemon=True)
		    worker.start()
		    pool = multiprocessing.Pool(3)
		    pool.map(square, range(100))
		    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
		    print("ready", flush=True)
		    while True:
		        signal.sigwait([signal.SIGUSR1])
		        n += 1
		        assert pool.map(square, range(100)) == [x * x for x in range(100)]
		        questions.put(n)
		        assert answers.get(timeout=60) == (worker.pid, n)
		        print("ok", n, flush=True)
	PYTHON
	start "$(python)" "$BATS_TEST_TMPDIR/pool.py"
	ask USR1
	ten_rounds USR1
}

@test "node with timers, a server and its clients" {
	need node
	cat >"$BATS_TEST_TMPDIR/server.js" <<-'NODE'
		let n = 0, ticks = 0;
		const facts = new Map();
		for (let i = 0; i < 100000; i++) facts.set(i, 'fact ' + i);
		setInterval(() => ticks++, 5);
		const { Worker } = require('worker_threads');
		const worker = new Worker("require('worker_threads').parentPort.on('message', x => require('worker_threads').parentPort.postMessage(x + 1))", { eval: true });
		process.on('SIGUSR2', () => {
			const before = ticks;
			worker.once('message', answer => {
				const wait = setInterval(() => {
					if (ticks <= before) return;
					clearInterval(wait);
					n++;
					console.log(answer === n + 1 && facts.get(77777) === 'fact 77777' ? 'ok ' + n : 'FAIL: ' + answer);
				}, 5);
			});
			worker.postMessage(n + 1);
		});
		worker.once('message', () => console.log('ready'));
		worker.postMessage(0);
	NODE
	start "$(readlink -f "$(command -v node)")" "$BATS_TEST_TMPDIR/server.js"
	ask USR2
	ten_rounds USR2
}

@test "java with threads and a collector at work" {
	need javac
	cat >"$BATS_TEST_TMPDIR/Count.java" <<-'JAVA'
		import java.util.*;
		import java.util.concurrent.atomic.*;
		import sun.misc.Signal;

		public class Count {
			static int n;
			public static void main(String[] args) throws Exception {
				AtomicLong count = new AtomicLong();
				Map<Integer, String> facts = new HashMap<>();
				for (int i = 0; i < 100000; i++) facts.put(i, "fact " + i);
				for (int t = 0; t < 4; t++) {
					Thread thread = new Thread(() -> {
						List<byte[]> garbage = new ArrayList<>();
						while (true) {
							garbage.add(new byte[1000]);
							if (garbage.size() > 100) garbage.clear();
							count.incrementAndGet();
							try { Thread.sleep(1); } catch (InterruptedException e) { return; }
						}
					});
					thread.setDaemon(true);
					thread.start();
				}
				Signal.handle(new Signal("USR2"), s -> {
					long before = count.get();
					while (count.get() < before + 20) Thread.onSpinWait();
					n++;
					System.out.println(facts.get(77777).equals("fact 77777") ? "ok " + n : "FAIL: a fact is wrong");
				});
				System.out.println("ready");
				Thread.currentThread().join();
			}
		}
	JAVA
	(cd "$BATS_TEST_TMPDIR" && javac -nowarn Count.java 2>/dev/null)
	start "$(readlink -f "$(command -v java)")" -Xmx64m -cp "$BATS_TEST_TMPDIR" Count
	ask USR2
	ten_rounds USR2
}

@test "make -j4 in the middle of a build" {
	local copy=$BATS_TEST_TMPDIR/copy log=$BATS_TEST_TMPDIR/make.log
	mkdir "$copy"
	tar -C "$BATS_TEST_DIRNAME/.." --exclude=./build --exclude=./.git -cf - . | tar -C "$copy" -xf -
	PID=$(env "$MARK" "$PROGS/reaper" -b "$log" "$(command -v make)" -C "$copy" -j4)
	eventually grep -q CC "$log"
	rounds_until_end
	((ROUNDS > 2)) || fail "only $ROUNDS rounds" "$(cat "$log")"
	! grep -E 'error:|\*\*\*' "$log" || fail "$(cat "$log")"
	"$copy/build/criu-lite" --help >/dev/null
}

@test "tmux with two shells, and vim in one of them" {
	need tmux
	need vim
	local socket=$BATS_TEST_TMPDIR/tmux round file=$BATS_TEST_TMPDIR/text
	mux() {
		env -u TMUX "$MARK" tmux -S "$socket" "$@" </dev/null
	}
	# With nothing of bats' open; the server is the reaper's child in the end.
	OUT=$BATS_TEST_TMPDIR/tmux.out
	: >"$OUT"
	env -u TMUX "$MARK" TERM=xterm SHELL=/bin/sh "$PROGS/reaper" -b "$OUT" "$(command -v tmux)" -f /dev/null -S "$socket" \
		new-session -d -x 80 -y 24 -s work "exec /bin/sh" >/dev/null
	eventually mux has-session -t work 2>/dev/null
	mux new-window -t work "exec vim -u NONE -N '$file'"
	mux new-window -t work "exec /bin/sh"
	PID=$(mux display-message -p '#{pid}')
	mux send-keys -t work:1 i
	for round in {1..10}; do
		mux send-keys -t work:1 "line $round" Enter
		mux send-keys -t work:0 "echo first-$round >>'$BATS_TEST_TMPDIR/first'" Enter
		mux send-keys -t work:2 "echo third-$round >>'$BATS_TEST_TMPDIR/third'" Enter
		eventually grep -qs "first-$round$" "$BATS_TEST_TMPDIR/first"
		eventually grep -qs "third-$round$" "$BATS_TEST_TMPDIR/third"
		IMG=$BATS_TEST_TMPDIR/tmux.$round
		# What a shell has just written may not have been read yet: then the dump asks for another moment.
		eventually crl dump -t "$PID" -D "$IMG" || fail "$(cat "$STDERR")"
		gone "$PID"
		restore_ok
		rm -r "$IMG"
	done
	mux send-keys -t work:1 Escape
	mux send-keys -t work:1 ":wq" Enter
	eventually test -s "$file"
	(($(grep -c '^line' "$file") == 10)) || fail "vim wrote: $(cat "$file")"
	mux kill-server
	gone "$PID"
}

@test "a web server that forks its workers beforehand" {
	cat >"$BATS_TEST_TMPDIR/prefork.py" <<-'PYTHON'
		import http.server, os, signal, socket, urllib.request

		class Answer(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        self.send_response(200)
		        self.end_headers()
		        self.wfile.write(b"worker %d" % os.getpid())

		    def log_message(self, *args):
		        pass

		signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
		server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
		workers = []
		for _ in range(3):
		    pid = os.fork()
		    if pid == 0:
		        server.serve_forever()
		    workers.append(pid)
		url = "http://127.0.0.1:%d/" % server.server_address[1]
		opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
		print("ready", flush=True)
		n = 0
		while True:
		    signal.sigwait([signal.SIGUSR1])
		    for _ in range(10):
		        answer = opener.open(url, timeout=60).read()
		        assert int(answer.split()[1]) in workers, answer
		    n += 1
		    print("ok", n, flush=True)
	PYTHON
	start "$(python)" "$BATS_TEST_TMPDIR/prefork.py"
	ask USR1
	ten_rounds USR1
}

@test "git clone of a local repository, mid way" {
	need_root "a second dump inside a namespace of restore's own has hung once here: to be found"
	need git
	local from=$BATS_TEST_TMPDIR/from to=$BATS_TEST_TMPDIR/to log=$BATS_TEST_TMPDIR/clone.log
	git init -q "$from"
	# Enough that it takes a while: some megabytes that do not compress.
	mkdir "$from/data"
	for i in {1..40}; do
		head -c 1000000 /dev/urandom >"$from/data/$i"
	done
	git -C "$from" add .
	git -C "$from" -c user.name=test -c user.email=test@localhost commit -qm all
	PID=$(env "$MARK" "$PROGS/reaper" -b "$log" "$(command -v git)" clone --no-local "file://$from" "$to")
	rounds_until_end
	((ROUNDS > 0)) || fail "it was over before the first dump" "$(cat "$log")"
	git -C "$to" fsck --no-progress || fail "$(cat "$log")"
	diff -r "$from/data" "$to/data"
}
