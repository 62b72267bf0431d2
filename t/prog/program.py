"""A Python program as people write them: threads, open files, a big dictionary.

It speaks the targets' protocol (target.h): `ready`, then `ok N` or `FAIL: why` at each SIGUSR1; SIGTERM ends it.
"""
import hashlib
import os
import queue
import signal
import sys
import threading
import time

SIZE = int(sys.argv[1]) if len(sys.argv) > 1 else 200000


def say(text):
    os.write(1, (text + "\n").encode())


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})

big = {f"key {i}": [i, str(i) * 3, float(i) / 7] for i in range(SIZE)}
counts = [0] * 4
trouble = []
jobs, answers = queue.Queue(), queue.Queue()

with open("input.txt", "w") as f:
    f.writelines(f"line {i}\n" for i in range(100000))
reading = open("input.txt")
lines_read = sum(1 for _ in zip(range(12345), reading))
log = open("log.txt", "a", buffering=1)
scratch = open("scratch.bin", "w+b", buffering=0)
scratch.write(bytes(range(256)) * 16)
scratch.seek(1000)


def digest():
    h = hashlib.sha256()
    for key, value in big.items():
        h.update(f"{key}{value}".encode())
    return h.hexdigest()


def sleeper(i):
    while True:
        start = time.monotonic()
        time.sleep(0.02)
        if time.monotonic() - start < 0.02:
            trouble.append("a sleep of 20 ms was shorter")
        counts[i] += 1


def reckoner(i):
    n = 0
    while True:
        n = (n * 1103515245 + 12345) % 2**61
        counts[i] += 1
        if counts[i] % 1000 == 0:
            time.sleep(0.005)


def answerer(i):
    while True:
        answers.put(jobs.get() * 2)
        counts[i] += 1


def asker(i):
    while True:
        jobs.put(counts[i])
        if answers.get() != counts[i] * 2:
            trouble.append("a wrong answer came through the queues")
        counts[i] += 1
        time.sleep(0.01)


for number, work in enumerate((sleeper, reckoner, answerer, asker)):
    threading.Thread(target=work, args=(number,), daemon=True).start()

before_digest, pid, fds, cwd = digest(), os.getpid(), sorted(os.listdir("/proc/self/fd")), os.getcwd()
threads = sorted(os.listdir("/proc/self/task"))


def check(n):
    global lines_read
    if trouble:
        return trouble[0]
    if os.getpid() != pid or os.getcwd() != cwd:
        return "another pid or directory"
    now = sorted(os.listdir("/proc/self/fd")), sorted(os.listdir("/proc/self/task"))
    if now != (fds, threads):
        return f"descriptors, threads were {fds} {threads} and are {now}"
    start, end = list(counts), time.monotonic() + 60
    while any(now <= then for now, then in zip(counts, start)):
        if time.monotonic() > end:
            return f"a thread makes no progress: {start} {counts}"
        time.sleep(0.005)
    if digest() != before_digest:
        return "the dictionary has changed"
    line = reading.readline()
    if line != f"line {lines_read}\n":
        return f"read {line!r} instead of line {lines_read}"
    lines_read += 1
    log.write(f"check {n}\n")
    with open("log.txt") as f:
        if f.read() != "".join(f"check {i}\n" for i in range(1, n + 1)):
            return "what was appended to the log is not there"
    place = (1000 + 10 * (n - 1)) % 4000
    if scratch.tell() != place or scratch.read(10) != bytes((place + i) % 256 for i in range(10)):
        return f"the scratch file was at {place}"
    if place + 10 >= 4000:
        scratch.seek(0)
    big[f"check {n}"] = n
    del big[f"check {n}"]
    return None


n = 0
say("ready")
while True:
    if signal.sigwaitinfo({signal.SIGUSR1, signal.SIGTERM}).si_signo == signal.SIGTERM:
        os._exit(int(os.environ.get("TARGET_STATUS", "0")))
    why = check(n + 1)
    if why:
        say(f"FAIL: {why}")
    else:
        n += 1
        say(f"ok {n}")
