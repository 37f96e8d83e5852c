// Package console is the web console of one agent: what its slots do now, what
// they did, and which images they use, in a browser.
//
// A Feed remembers what happened lately; it is a sink of events. A Console
// shows that and what its Sources say, as pages that are written here and as
// streams that keep an open page up to date. It stores nothing on the disk.
//
// A page is complete without scripts. With them, a stream (server-sent events)
// brings what has changed: parts of the page as HTML, by the id of the element
// that they replace, and the lanes of the timeline as JSON. A stream has no
// queue: a reader is told of the present, compared with what it was told last,
// and one that takes too long over it is cut off.
//
// # Who gets in
//
// The console listens on a loopback address, which guests may reach. So nothing
// is answered without a session, neither files nor streams. A session begins
// with a link: an address with a token that only the agent's Unix socket gives
// out, that works once, and for two minutes. The session is a cookie that
// scripts cannot read and other sites cannot send; it ends when nobody has used
// it for an hour, and after a day in any case. Of tokens and sessions only
// digests are kept, in memory.
//
// The Host header must name a loopback address, or one of the names that the
// configuration allows, so that no other site can pose as the console by its
// name's address (DNS rebinding). What changes anything is a POST with the
// session's own word in it, from a page of ours.
package console
