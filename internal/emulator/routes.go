package emulator

import (
	"net/http"
	"strings"
)

// brokerSource names the broker in errors; the official runner compares it.
const brokerSource = "actions-broker-listener"

const adminPrefix = "/_emulator/"

// routes is the table of everything that is served. The REST part is found under /api/v3 as well.
func (e *Emulator) routes() http.Handler {
	mux := http.NewServeMux()
	e.restRoutes(mux)
	e.runnerRoutes(mux)
	e.setRoutes(mux)

	mux.HandleFunc("GET /_emulator/state", e.asAdmin(e.getState))
	mux.HandleFunc("POST /_emulator/workflows", e.asAdmin(e.postWorkflow))
	mux.HandleFunc("GET /_emulator/runs/{id}", e.asAdmin(e.getRunState))
	mux.HandleFunc("POST /_emulator/runs/{id}/cancel", e.asAdmin(e.postCancel))
	mux.HandleFunc("GET /_emulator/jobs/{id}/log", e.asAdmin(e.getJobLog))
	mux.HandleFunc("PUT /_emulator/faults", e.asAdmin(e.putFaults))

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		githubError(w, http.StatusNotFound, "Not Found")
	})
	return mux
}

// restRoutes are GitHub's REST API.
func (e *Emulator) restRoutes(mux *http.ServeMux) {
	for _, prefix := range []string{"/repos/{owner}/{repo}", "/orgs/{owner}", "/enterprises/{owner}"} {
		a := prefix + "/actions/"
		mux.HandleFunc("POST "+a+"runners/registration-token", e.asAdmin(e.scoped(e.postToken)))
		mux.HandleFunc("POST "+a+"runners/remove-token", e.asAdmin(e.scoped(e.postToken)))
		mux.HandleFunc("POST "+a+"runners/generate-jitconfig", e.asAdmin(e.scoped(e.postJIT)))
		mux.HandleFunc("GET "+a+"runners", e.asRegistrar(e.scoped(e.listRunners)))
		mux.HandleFunc("GET "+a+"runners/downloads", e.asAdmin(e.scoped(e.listDownloads)))
		mux.HandleFunc("GET "+a+"runners/{id}", e.asAdmin(e.scoped(e.getRunner)))
		mux.HandleFunc("DELETE "+a+"runners/{id}", e.asRegistrar(e.scoped(e.deleteRunner)))
		mux.HandleFunc("GET "+a+"runner-groups", e.asRegistrar(e.scoped(e.listGroups)))
		mux.HandleFunc("GET "+a+"runner-groups/{id}", e.asAdmin(e.scoped(e.getGroup)))
	}
	mux.HandleFunc("GET /orgs/{owner}", e.asAdmin(e.scoped(e.getOrganization)))
	mux.HandleFunc("GET /repos/{owner}/{repo}", e.asAdmin(e.scoped(e.getRepository)))
	mux.HandleFunc("GET /orgs/{owner}/actions/runner-groups/{id}/repositories", e.asAdmin(e.scoped(e.listGroupRepositories)))
	mux.HandleFunc("GET /user", e.asAdmin(e.getUser))

	mux.HandleFunc("GET /users/{owner}", e.getAccount)
	mux.HandleFunc("POST /settings/apps/new", e.postManifest)
	mux.HandleFunc("POST /organizations/{owner}/settings/apps/new", e.postManifest)
	mux.HandleFunc("POST /app-manifests/{code}/conversions", e.postConversion)
	mux.HandleFunc("GET /apps/{slug}/installations/new", e.getInstallPage)
	mux.HandleFunc("POST /apps/{slug}/installations/new", e.postInstallPage)
	mux.HandleFunc("GET /app", e.asApp(e.getApp))
	mux.HandleFunc("GET /app/installations", e.asApp(e.listInstallations))
	mux.HandleFunc("GET /app/installations/{id}", e.asApp(e.getInstallation))
	mux.HandleFunc("POST /app/installations/{id}/access_tokens", e.asApp(e.postInstallationToken))
	mux.HandleFunc("GET /orgs/{owner}/installation", e.asApp(e.findInstallation))
	mux.HandleFunc("GET /users/{owner}/installation", e.asApp(e.findInstallation))
	mux.HandleFunc("GET /repos/{owner}/{repo}/installation", e.asApp(e.findInstallation))

	mux.HandleFunc("POST /actions/runner-registration", e.postRegistration)
	mux.HandleFunc("POST /actions/runners/register", e.asRegistrar(e.postRegister))
	mux.HandleFunc("GET /rate_limit", e.asAdmin(e.getRateLimit))

	a := "/repos/{owner}/{repo}/actions/"
	mux.HandleFunc("GET "+a+"runs", e.asAdmin(e.scoped(e.listRuns)))
	mux.HandleFunc("GET "+a+"runs/{id}", e.asAdmin(e.scoped(e.getRun)))
	mux.HandleFunc("GET "+a+"runs/{id}/jobs", e.asAdmin(e.scoped(e.listJobs)))
	mux.HandleFunc("POST "+a+"runs/{id}/cancel", e.asAdmin(e.scoped(e.cancelRun)))
	mux.HandleFunc("GET "+a+"jobs/{id}", e.asAdmin(e.scoped(e.getJob)))
	mux.HandleFunc("GET "+a+"jobs/{id}/logs", e.asAdmin(e.scoped(e.redirectLog)))
}

// runnerRoutes are what runner programs speak.
func (e *Emulator) runnerRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /oauth/token", e.postAccessToken)

	d := "/tenant/_apis/distributedtask/pools"
	mux.HandleFunc("GET /tenant/_apis/connectionData", e.getConnectionData)
	mux.HandleFunc("GET "+d, e.asPoolUser(e.listPools))
	mux.HandleFunc("GET "+d+"/{pool}/agents", e.asManager(e.listAgents))
	mux.HandleFunc("GET "+d+"/{pool}/agents/{id}", e.asManager(e.getAgent))
	mux.HandleFunc("POST "+d+"/{pool}/agents", e.asManager(e.postAgent))
	mux.HandleFunc("PUT "+d+"/{pool}/agents/{id}", e.asManager(e.postAgent))
	mux.HandleFunc("DELETE "+d+"/{pool}/agents/{id}", e.asManager(e.deleteAgent))
	mux.HandleFunc("POST "+d+"/{pool}/sessions", e.asRunner(e.postLegacySession))
	mux.HandleFunc("DELETE "+d+"/{pool}/sessions/{id}", e.asRunner(e.deleteSession))

	mux.HandleFunc("POST /broker/session", e.asRunner(e.postSession))
	mux.HandleFunc("GET /broker/message", e.asRunner(e.getMessage))
	mux.HandleFunc("POST /broker/acknowledge", e.asRunner(e.postAcknowledge))
	mux.HandleFunc("DELETE /broker/session", e.asRunner(e.deleteSession))

	mux.HandleFunc("POST /run/acquirejob", e.asRunner(e.postAcquire))
	mux.HandleFunc("POST /run/renewjob", e.asJob(e.postRenew))
	mux.HandleFunc("POST /run/completejob", e.asJob(e.postComplete))

	const receiver = "/twirp/results.services.receiver.Receiver/"
	mux.HandleFunc("POST /twirp/github.actions.results.api.v1.WorkflowStepUpdateService/WorkflowStepsUpdate",
		e.asJob(e.postStepsUpdate))
	for _, c := range []struct{ call, kind, field string }{
		{"GetStepLogsSignedBlobURL", blobStepLog, "logs_url"},
		{"GetJobLogsSignedBlobURL", blobJobLog, "logs_url"},
		{"GetStepSummarySignedBlobURL", blobSummary, "summary_url"},
		{"GetJobDiagLogsSignedBlobURL", blobDiag, "diag_logs_url"},
	} {
		mux.HandleFunc("POST "+receiver+c.call, e.asJob(e.signBlob(c.kind, c.field)))
	}
	for _, call := range []string{"CreateStepLogsMetadata", "CreateJobLogsMetadata", "CreateStepSummaryMetadata", "CreateJobDiagLogsMetadata"} {
		mux.HandleFunc("POST "+receiver+call, e.asJob(e.postMetadata))
	}
	mux.HandleFunc("PUT /blob/{job}/{kind}", e.putBlob)
	mux.HandleFunc("PUT /blob/{job}/{kind}/{step}", e.putBlob)
	mux.HandleFunc("GET /blob/{job}/{kind}", e.getBlob)
	mux.HandleFunc("GET /feed/{job}", e.asJob(e.getFeed))

	mux.HandleFunc("POST /actions/build/{plan}/jobs/{job}/runnerresolve/actions", e.asJob(e.postResolve))
	mux.HandleFunc("GET /downloads/{file}", e.getDownload)
	mux.HandleFunc("GET /launch/{run}/{archive}", e.getArchive)
}

// setRoutes are the scale-set service.
func (e *Emulator) setRoutes(mux *http.ServeMux) {
	const sets = "/tenant/_apis/runtime/runnerscalesets"
	mux.HandleFunc("GET /tenant/_apis/runtime/runnergroups", marked(e.asManager(e.findGroups)))
	mux.HandleFunc("GET /tenant/_apis/runtime/runnergroups/{$}", marked(e.asManager(e.findGroups)))
	mux.HandleFunc("GET "+sets, marked(e.asManager(e.listSets)))
	mux.HandleFunc("POST "+sets, e.asManager(e.postSet))
	mux.HandleFunc("GET "+sets+"/{set}", marked(e.asSetUser(e.getSet)))
	mux.HandleFunc("PATCH "+sets+"/{set}", e.asSetUser(e.patchSet))
	mux.HandleFunc("DELETE "+sets+"/{set}", e.asSetUser(e.deleteSet))
	mux.HandleFunc("POST "+sets+"/{set}/generatejitconfig", e.asSetUser(e.postSetJIT))
	mux.HandleFunc("POST "+sets+"/{set}/sessions", e.asSetUser(e.postSetSession))
	mux.HandleFunc("PATCH "+sets+"/{set}/sessions/{id}", e.asSetUser(e.patchSetSession))
	mux.HandleFunc("DELETE "+sets+"/{set}/sessions/{id}", e.asSetUser(e.deleteSetSession))
	mux.HandleFunc("GET "+sets+"/{set}/acquirablejobs", e.asSetUser(e.listAcquirable))
	mux.HandleFunc("POST "+sets+"/{set}/acquirejobs", e.asListener(e.postAcquireJobs))
	mux.HandleFunc("GET /queue/{set}", e.asListener(e.getSetMessage))
	mux.HandleFunc("DELETE /queue/{set}/{message}", e.asListener(e.deleteSetMessage))
}

// middleware is what every request goes through: one spelling of the path, the faults, a line in the log.
func (e *Emulator) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		for strings.Contains(path, "//") { // a redirect would turn a POST into a GET
			path = strings.ReplaceAll(path, "//", "/")
		}
		if rest, ok := strings.CutPrefix(path, "/api/v3/"); ok {
			path = "/" + rest
		}
		if path != r.URL.Path {
			u := *r.URL
			u.Path, u.RawPath = path, ""
			clone := *r
			clone.URL = &u
			r = &clone
		}
		e.log.Debug("request", "method", r.Method, "path", path)
		w.Header().Set("X-GitHub-Request-Id", newGUID())
		e.faulty(w, r, next)
	})
}
