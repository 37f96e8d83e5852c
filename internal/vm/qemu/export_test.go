package qemu

// RoleScript makes a program that is this test in a role of TestMain.
var RoleScript = roleScript
