// Package webtest looks at the console in a real browser.
//
// Its tests serve consoles: one of a fleet that runs jobs (the agent, guests
// that are processes, and the emulator), and some whose data are made up, empty,
// full and failing. A program for Node.js, console.test.mjs, then drives
// Chromium through them; playwright-core speaks to it, and axe-core looks for
// what keeps people out. Both come by npm ci from package-lock.json and are no
// part of the program.
//
// Both sides talk by Control: HTTP calls that make links, queue jobs and look at
// what the agent did.
package webtest
