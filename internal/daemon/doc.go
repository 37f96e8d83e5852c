// Package daemon serves the agent's HTTP API on a Unix socket, HOME/tasuki.sock.
//
// A home belongs to one agent at a time: Claim takes it by a lock on
// HOME/tasuki.lock, which the system drops with the process, so that neither a
// crash nor a reused process number leaves a home locked. Only who holds the
// claim replaces the socket that a dead agent left. The socket has mode 0600:
// who may open it may do all that the agent does, and no port is opened.
//
// The routes:
//
//	GET  /healthz                  "ok"
//	GET  /v1/status                api.Status
//	GET  /v1/events                event.Event as JSON lines; ?since=RFC3339, ?follow=true
//	POST /v1/drain, /v1/resume     ?pool=NAME, else the host
//	POST /v1/reload                takes a changed configuration over
//	POST /v1/runners/NAME/hold     api.Hold
//	GET  /v1/runners/NAME/login    api.Login
//	GET  /v1/runners/NAME/log      the runner program's log; ?follow=true
//	POST /v1/console               api.ConsoleLink
//
// An answer of 400 or more is an api.Error.
package daemon
