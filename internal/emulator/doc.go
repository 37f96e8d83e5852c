// Package emulator is GitHub Actions in one process: the REST API for self-hosted runners, GitHub Apps, the
// scale-set service, the protocol that runner programs speak, and the results service that takes their logs. It needs no account, no
// internet and no disk; it forgets everything when it ends.
//
// # Terms
//
// A run is one execution of a workflow; its jobs become queued as package workflow says. A runner is a
// registration: it exists from generate-jitconfig (or config --token) until its one job is over or it is
// deleted. A session is the open line of a runner program; a runner with a session that polls is online.
// A job is offered to the first runner whose labels, group and scope fit and that polls; it is
// acknowledged, acquired (from then on it runs), renewed every minute, and completed. A job that is not
// acquired in time goes back to the queue, one that is not renewed in time fails.
//
// A scale set is what jobs are assigned to rather than to runners: its one listener holds a session, polls a
// queue of messages, announces a capacity (how many jobs the set may hold in all) and starts runners. A job
// that is assigned to a set goes to whichever runner of the set comes first and to no other; an assignment
// that no runner comes for lapses, and the job is assigned again under another job id, as often as
// Options.ScaleSets.Assignments says; after that it goes to the next runner of any set that fits. In the flow
// with acquisition (Options.ScaleSets.Acquire) a job is first available, to every set that fits, and assigned
// to the one that acquires it. A set fits that has all labels of runs-on, or whose name alone runs-on is
// (Options.ScaleSets.ByName); in a group that admits the repository.
//
// An App is a GitHub App: one that Options.App brings, or that somebody makes by the manifest flow, in which a
// browser sends a form, is sent back with a code, and the code is converted into the App and its key, once.
//
// A fault is something that goes wrong: with requests, with a set's messages, with scale sets themselves. An
// incident is a fault that others met, by its name; a quota is how many REST calls GitHub allows.
//
// # What it follows
//
// The official runner's contracts wherever they are known: base URLs end in a slash, RSA parts are padded,
// the job token is a JWT, polls are held 50 s, a Busy poll is given no job. Jobs always travel by the V2
// flow (broker, run service, results service); runner programs that begin with the legacy V1 session are
// moved there by a broker migration message. The legacy job flow itself is not served.
//
// # Seeing and driving it from other processes
//
//	GET  /_emulator/state              State; ?logs=0 leaves the step logs out, ?wait=30s holds until it changes
//	POST /_emulator/workflows          {"path": FILE} or {"name", "contents"}, optionally "tree": {"run_id"}
//	GET  /_emulator/runs/{id}          RunState with logs; ?wait=30s holds until the run is completed
//	POST /_emulator/runs/{id}/cancel   202
//	GET  /_emulator/jobs/{id}/log      the job's log as text; the id is the number or the GUID
//	PUT  /_emulator/faults             []Fault as ParseFaults reads them, replacing those before
//
// They ask for Options.Token when one is set, as the REST API does; set one wherever guests or strangers reach
// the port. Without one, POST workflows takes no path and no tree: a workflow could show any file of this
// machine. Everything else lies where GitHub has it, under both / and /api/v3: see routes.go.
//
// # Layout
//
// dispatch.go, jobs.go, lifecycle.go and scaleset*.go hold the rules; rest_*.go, app.go, manifest.go,
// register.go, agents.go, broker.go, runservice.go, results.go, feed.go and launch.go translate one protocol surface each
// and keep nothing. credentials.go says who may do what, quota.go how often, faults.go and incidents.go what
// goes wrong, faultfile.go how a file says so.
//
// The zero Options are ready to use: New(Options{}).Handler() serves a whole GitHub with one repository.
//
// Tests of time (testing/synctest) reach it without a socket, whose clock a bubble does not advance: by Client
// or Transport, which call the handler on the caller's goroutine, or by a Pipe where a client insists on an
// http.Transport of its own or wants replies as they come. All deadlines and faults then keep the bubble's time.
//
// An Emulator is safe for concurrent use. One mutex guards all state; no request holds it while it waits.
package emulator
