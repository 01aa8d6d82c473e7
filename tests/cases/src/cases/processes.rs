//! Many processes in one container, and programs people run.

use anyhow::Result;

use super::cases;
use crate::run::Run;

cases!("processes":
    orphans_are_reaped,
    a_hundred_processes_at_once,
    the_container_ends_with_its_first_process,
    python_computes_with_several_processes,
    nginx_answers_a_request,
    redis_stores_and_finds,
    a_compiler_builds_a_program_that_runs,
);

fn orphans_are_reaped() -> Result<()> {
    // Every grandchild outlives its parent and becomes a child of pid 1: the init of the container.
    let script = "import os, time\n\
                  for _ in range(50):\n\
                  \x20   if os.fork() == 0:\n\
                  \x20       if os.fork() == 0: os._exit(0)\n\
                  \x20       os._exit(0)\n\
                  n = 0\n\
                  while n < 100:\n\
                  \x20   os.wait(); n += 1\n\
                  print(n)";
    Run::command(&["python3", "-c", script]).output()?.exits(0)?.prints("100").map(drop)
}

fn a_hundred_processes_at_once() -> Result<()> {
    let script = "for i in $(seq 100); do (sleep 1; echo $i) & done; wait";
    let outcome = Run::shell(script).output()?.exits(0)?;
    anyhow::ensure!(outcome.text().lines().count() == 100, "{outcome}");
    Ok(())
}

fn the_container_ends_with_its_first_process() -> Result<()> {
    Run::shell("sleep 1000 & echo started; exit 4").output()?.exits(4)?.prints("started").map(drop)
}

fn python_computes_with_several_processes() -> Result<()> {
    let script = "from multiprocessing import Pool\n\
                  def square(x): return x * x\n\
                  with Pool(4) as pool: print(sum(pool.map(square, range(1000))))";
    Run::command(&["python3", "-c", script])
        .flags(&["--cpus", "2"])
        .output()?
        .exits(0)?
        .prints("332833500")
        .map(drop)
}

fn nginx_answers_a_request() -> Result<()> {
    let script = "mkdir -p /var/log/nginx; nginx -g 'error_log /dev/stderr;' && python3 -c \
                  'import urllib.request as u; r = u.urlopen(\"http://127.0.0.1/\"); \
                  print(r.status, r.headers[\"Server\"].split(\"/\")[0])'; nginx -s quit";
    Run::shell(script).output()?.exits(0)?.prints("200 nginx").map(drop)
}

fn redis_stores_and_finds() -> Result<()> {
    let script = "redis-server --save '' --daemonize yes > /dev/null; \
                  for i in $(seq 50); do redis-cli ping 2>/dev/null | grep -q PONG && break; sleep 0.1; done; \
                  redis-cli set answer 42; redis-cli get answer; redis-cli shutdown nosave";
    Run::shell(script).output()?.exits(0)?.prints("OK\n42").map(drop)
}

fn a_compiler_builds_a_program_that_runs() -> Result<()> {
    let script = "cat > /tmp/a.c && (tcc -o /tmp/a /tmp/a.c || gcc -o /tmp/a /tmp/a.c) && /tmp/a";
    Run::shell(script)
        .stdin("#include <stdio.h>\nint main(void) { printf(\"%d\\n\", 6 * 7); return 3; }\n")
        .output()?
        .exits(3)?
        .prints("42")
        .map(drop)
}
