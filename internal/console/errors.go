package console

import (
	"errors"
	"io/fs"
	"net/http"

	"github.com/mirego/tasuki/internal/agent"
)

// errBad is a request that makes no sense.
var errBad = errors.New("bad request")

// errNowhere is a page that there is not.
var errNowhere = errors.New("no such page")

// errNoHistory: the agent could not open its history.
var errNoHistory = errors.New("this agent keeps no history: tasuki status says why")

// statusTable maps errors to HTTP statuses. The first row that fits counts.
var statusTable = []struct {
	err    error
	status int
	title  string
}{
	{errNowhere, http.StatusNotFound, "Not here"},
	{agent.ErrNoPool, http.StatusNotFound, "No such pool"},
	{agent.ErrNoRunner, http.StatusNotFound, "No such runner"},
	{fs.ErrNotExist, http.StatusNotFound, "Not here"},
	{errBad, http.StatusBadRequest, "That makes no sense"},
	{errNoHistory, http.StatusNotImplemented, "No history"},
}

// fail shows an error as a page.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, title := http.StatusInternalServerError, "Something is wrong"
	for _, row := range statusTable {
		if errors.Is(err, row.err) {
			status, title = row.status, row.title
			break
		}
	}
	if status == http.StatusInternalServerError {
		c.log.Warn("console's request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	_ = c.show(w, r, status, "error", page{Title: title, Body: err.Error()})
}
