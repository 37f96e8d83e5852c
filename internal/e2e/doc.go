// Package e2e is the tests of the whole: the built program as an agent in a
// process of its own, real guests under QEMU, an image that is built, pushed and
// pulled, and a runner program that we did not write. GitHub alone is the
// emulator, in the test's process.
//
// A story is one home with its own GitHub; all stories share one registry and
// what was pulled from it. Where a story needs two things to happen at once, it
// says itself when a job may end (see world.release): nothing depends on how
// fast this machine boots a guest. Those with guests need QEMU and are asked for
// by TASUKI_TEST_QEMU=1, as make test does; they take some minutes. The burst
// has the fake driver, and much going wrong at GitHub instead.
package e2e
