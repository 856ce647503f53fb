# What the test servers' scripts share. Sourced, with $name and $port set.

CACHE="${ECOD_TEST_CACHE:-$HOME/.cache/ecod-test}"
BIN="$CACHE/bin"
RUN="$CACHE/run/$name-$port" # of the server on this port: its data, its log, its process ids
LOG="$RUN/log"

die() { printf '%s: %s\n' "$name-test-server" "$*" >&2; exit 1; }

# locked has starts and stops of one port follow each other. What is started in the background closes fd 9 again, else
# the lock would live as long as the server.
locked() {
  mkdir -p "$BIN" "$CACHE/run"
  exec 9>"$CACHE/run/$name-$port.lock"
  flock 9
}

# building is held while something in the cache is made that all ports share.
building() { exec 8>"$CACHE/build.lock"; flock 8; }
built() { exec 8>&-; }

listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# alive tells whether the process of a pid file is there still.
alive() { [ -s "$RUN/$1.pid" ] && kill -0 "$(cat "$RUN/$1.pid")" 2>/dev/null; }

# until_ready SECONDS COMMAND...
until_ready() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { tail -n 20 "$LOG" >&2 || true; die "not ready in time: $* (log: $LOG)"; }
    sleep 0.2
  done
}

# in_background NAME COMMAND... leaves the command running by itself, its process id in NAME.pid.
in_background() {
  local pidfile="$RUN/$1.pid"
  shift
  setsid nohup "$@" >>"$LOG" 2>&1 </dev/null 9>&- &
  echo $! >"$pidfile"
}

# end NAME SIGNAL ends a process that in_background left, and waits for it.
end() {
  alive "$1" || return 0
  local pid
  pid=$(cat "$RUN/$1.pid")
  kill "-$2" "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

# debian PACKAGE COMMAND installs a package of Debian's where its command is missing.
debian() {
  command -v "$2" >/dev/null && return 0
  [ "$(id -u)" = 0 ] || die "$2 is missing: apt-get install $1"
  (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1") >>"$CACHE/apt.log" 2>&1 ||
    die "apt-get install $1 failed (log: $CACHE/apt.log)"
}

# go_program NAME PACKAGE@VERSION builds a Go program into the cache, once for each version.
go_program() {
  local made="$BIN/$1" version="${2##*@}"
  [ -x "$made" ] && [ "$(cat "$made.version" 2>/dev/null)" = "$version" ] && return 0
  echo "building $2 (minutes, once)" >&2
  (cd / && GOBIN="$BIN" GOFLAGS='' GOWORK=off CGO_ENABLED=0 go install "$2") >>"$CACHE/build.log" 2>&1 ||
    die "go install $2 failed (log: $CACHE/build.log)"
  echo "$version" >"$made.version"
}
