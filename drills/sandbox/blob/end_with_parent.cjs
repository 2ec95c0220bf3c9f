// Loaded into Azurite before its own code: ends it in order when its parent is gone.
//
// The parent holds the other end of stdin. The end of stdin means that the parent closed it or died,
// also by kill -9; a new parent process id means the same where a fork of the parent still holds
// the pipe. Azurite answers SIGTERM by writing its catalogue; it gets ten seconds for that.
"use strict";

const parent = process.ppid;
let ending = false;

function end() {
  if (ending) return;
  ending = true;
  setTimeout(() => process.exit(1), 10000).unref();
  process.kill(process.pid, "SIGTERM");
  // Kept-alive connections would hold the process after everything is written.
  setTimeout(() => process.exit(0), 3000).unref();
}

process.stdin.on("end", end);
process.stdin.on("close", end);
process.stdin.on("error", end);
process.stdin.resume();
process.stdin.unref?.();

setInterval(() => {
  if (process.ppid !== parent) end();
}, 500).unref();
