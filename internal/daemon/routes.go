package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/base/backoff"
	"github.com/mirego/tasuki/internal/vm"
)

// errBad is a request that makes no sense.
var errBad = errors.New("bad request")

// errReload: what was to be taken over was not.
var errReload = errors.New("the configuration was not taken over")

// errNowhere is a route that there is not.
var errNowhere = errors.New("no such route")

// statusTable maps errors to HTTP statuses, with what to do about them. The
// first row that fits counts.
var statusTable = []struct {
	err    error
	status int
	hint   string
}{
	{agent.ErrNoRunner, http.StatusNotFound, "tasuki status lists the runners"},
	{agent.ErrNoPool, http.StatusNotFound, "tasuki status lists the pools"},
	{agent.ErrEnding, http.StatusConflict, "a hold must come before the runner has ended; hold_after_failure keeps the guests of failed jobs by itself"},
	{agent.ErrImage, http.StatusConflict, "tasuki status --json shows the pool's digest, previous, rejected and pinned"},
	{errNowhere, http.StatusNotFound, "the agent and this program may be of different versions: tasuki version"},
	{errReload, http.StatusUnprocessableEntity, "the one before stays in force; mend the file (tasuki config check) and run tasuki reload again"},
	{errBad, http.StatusBadRequest, ""},
	{vm.ErrNotFound, http.StatusConflict, "the guest is not there yet, or not any more: tasuki status"},
	{vm.ErrUnsupported, http.StatusNotImplemented, ""},
	{fs.ErrNotExist, http.StatusNotFound, ""},
}

func statusOf(err error) (status int, hint string) {
	for _, row := range statusTable {
		if errors.Is(err, row.err) {
			return row.status, row.hint
		}
	}
	return http.StatusInternalServerError, ""
}

func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	_, _ = io.WriteString(w, "ok\n")
	return nil
}

func (s *Server) nowhere(_ http.ResponseWriter, r *http.Request) error {
	return fmt.Errorf("cannot %s %q: %w", r.Method, r.URL.Path, errNowhere)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	st := s.opt.Agent.Status()
	if s.opt.Complete != nil {
		s.opt.Complete(&st)
	}
	return answer(w, st)
}

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) error {
	if s.opt.Metrics == nil {
		return fmt.Errorf("cannot show metrics: this agent has none: %w", vm.ErrUnsupported)
	}
	s.opt.Metrics.ServeHTTP(w, r)
	return nil
}

func (s *Server) console(w http.ResponseWriter, r *http.Request) error {
	if s.opt.Console == nil {
		return fmt.Errorf("cannot open the console: this agent has none: %w", vm.ErrUnsupported)
	}
	link, err := s.opt.Console(r.Context())
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return answer(w, link)
}

func (s *Server) drain(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.opt.Agent.Drain(r.URL.Query().Get("pool")))
}

func (s *Server) resume(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.opt.Agent.Resume(r.URL.Query().Get("pool")))
}

func (s *Server) refreshImage(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.opt.Agent.RefreshImage(r.PathValue("name")))
}

func (s *Server) rollbackImage(w http.ResponseWriter, r *http.Request) error {
	return done(w, s.opt.Agent.RollbackImage(r.PathValue("name")))
}

func (s *Server) pinImage(w http.ResponseWriter, r *http.Request) error {
	var p api.Pin
	if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
		return fmt.Errorf("cannot read the request: %w: %w", err, errBad)
	}
	return done(w, s.opt.Agent.PinImage(r.PathValue("name"), p.Digest))
}

func (s *Server) reload(w http.ResponseWriter, r *http.Request) error {
	if s.opt.Reload == nil {
		return fmt.Errorf("cannot reload: this agent has no configuration file: %w", vm.ErrUnsupported)
	}
	if err := s.opt.Reload(r.Context()); err != nil {
		return fmt.Errorf("%w: %w", errReload, err)
	}
	return done(w, nil)
}

// maxHold bounds how long a guest can be kept, so that a slip of the finger
// does not take a slot for ever.
const maxHold = 7 * 24 * time.Hour

func (s *Server) hold(w http.ResponseWriter, r *http.Request) error {
	var h api.Hold
	if err := json.NewDecoder(r.Body).Decode(&h); err != nil {
		return fmt.Errorf("cannot read the request: %w: %w", err, errBad)
	}
	if !(h.Seconds >= 0 && h.Seconds <= maxHold.Seconds()) {
		return fmt.Errorf("cannot hold for %g s: at most %s: %w", h.Seconds, maxHold, errBad)
	}
	return done(w, s.opt.Agent.Hold(r.PathValue("name"), time.Duration(h.Seconds*float64(time.Second))))
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) error {
	l, err := s.opt.Agent.Login(r.PathValue("name"))
	if err != nil {
		return err
	}
	return answer(w, l)
}

// events streams past events since a time, and then live ones if asked to
// follow. A follower that does not keep up is cut off.
func (s *Server) events(w http.ResponseWriter, r *http.Request) error {
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	since, past := time.Time{}, r.URL.Query().Get("since")
	if past != "" {
		if since, err = time.Parse(time.RFC3339, past); err != nil {
			return fmt.Errorf("cannot read since %q: write it as 2006-01-02T15:04:05Z: %w", past, errBad)
		}
	}
	live, end := s.opt.Events.Subscribe() // before reading the past: nothing falls between
	defer end()
	flusher := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	if s.opt.Past != nil && (past != "" || !follow) {
		for e, err := range s.opt.Past(since) {
			if err != nil {
				s.log.Debug("an event is unreadable", "err", err)
				continue
			}
			if enc.Encode(e) != nil {
				return nil
			}
			since = e.Time
		}
	}
	if flusher.Flush() != nil {
		return nil
	}
	for follow {
		select {
		case <-r.Context().Done():
			return nil
		case e, open := <-live:
			if !open {
				return nil
			}
			if !e.Time.After(since) {
				continue // the past had it
			}
			if enc.Encode(e) != nil || flusher.Flush() != nil {
				return nil
			}
		}
	}
	return nil
}

// followPause is how often a followed log is looked at.
const followPause = 200 * time.Millisecond

// runnerLog serves the log of a runner program from this host's copy, or the
// console of its guest; followed, until the runner is gone.
func (s *Server) runnerLog(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	follow, err := flag(r, "follow")
	if err != nil {
		return err
	}
	console, err := flag(r, "console")
	if err != nil {
		return err
	}
	path, what := s.opt.Agent.LogPath, "its program has written nothing yet"
	if console {
		path, what = s.opt.Agent.ConsolePath, "its guest has no console, or has written nothing to it yet"
	}
	if vm.CheckName(name) != nil {
		return fmt.Errorf("cannot find runner %q: %w", name, agent.ErrNoRunner)
	}
	f, err := os.Open(path(name))
	if errors.Is(err, fs.ErrNotExist) {
		if !s.known(name) {
			return fmt.Errorf("cannot find runner %q: %w", name, agent.ErrNoRunner)
		}
		if !follow {
			return fmt.Errorf("cannot show the log of %q: %s: %w", name, what, fs.ErrNotExist)
		}
		f, err = s.awaitLog(r, name, path)
	}
	if err != nil || f == nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	flusher := http.NewResponseController(w)
	for {
		gone := !s.known(name) // before the last look: what is written then is all
		if _, err := io.Copy(w, f); err != nil || flusher.Flush() != nil {
			return nil
		}
		if !follow || gone || backoff.Sleep(r.Context(), followPause) != nil {
			return nil
		}
	}
}

// awaitLog waits for the log of a runner that has none yet; nil if none came.
func (s *Server) awaitLog(r *http.Request, name string, path func(string) string) (*os.File, error) {
	for s.known(name) {
		f, err := os.Open(path(name))
		if !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
		if backoff.Sleep(r.Context(), followPause) != nil {
			return nil, nil
		}
	}
	f, err := os.Open(path(name)) // what came with its end
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func (s *Server) known(name string) bool {
	return slices.ContainsFunc(s.opt.Agent.Status().Runners, func(r api.Runner) bool { return r.Name == name })
}

// flag reads a query parameter that is true or false.
func flag(r *http.Request, name string) (bool, error) {
	v := r.URL.Query().Get(name)
	if v == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, fmt.Errorf("cannot read %s=%q: write true or false: %w", name, v, errBad)
	}
	return b, nil
}
