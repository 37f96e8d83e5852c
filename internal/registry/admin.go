package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// adminSocket is where a running server takes orders. Who may open the file
// may give them: the user whom the server runs as.
const adminSocket = "admin.sock"

// maxSocketPath is the longest path of a Unix socket, in bytes; macOS takes
// the fewest. Source: <sys/un.h>, sun_path with its final zero.
const maxSocketPath = 103

// order is what an administrator asks for.
type order struct {
	Policy Policy `json:"policy"`
	DryRun bool   `json:"dryRun"`
}

// Admin serves the socket in the registry's directory until ctx ends. The
// caller holds the Lock. An error means that there is no socket; the registry
// works without.
func (s *Server) Admin(ctx context.Context) error {
	path := filepath.Join(s.dir, adminSocket)
	if len(path) > maxSocketPath {
		return fmt.Errorf("cannot take orders on %q: its path has %d bytes, and %d are the most; choose a shorter folder", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot take orders: %w", err)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("cannot take orders: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, l.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", s.serveCollect)
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		if srv.Shutdown(late) != nil {
			_ = srv.Close()
		}
	})
	err = srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if ctx.Err() == nil {
		return fmt.Errorf("cannot take orders: %w", err)
	}
	return nil
}

func (s *Server) serveCollect(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&o); err != nil {
		writeError(w, http.StatusBadRequest, "UNSUPPORTED", "cannot read the order: %v", err)
		return
	}
	report, err := s.Collect(r.Context(), o.Policy, o.DryRun)
	switch {
	case errors.Is(err, ErrBusy):
		writeError(w, http.StatusServiceUnavailable, "UNAVAILABLE", "%v", err)
	case err != nil:
		writeError(w, http.StatusInternalServerError, "UNKNOWN", "%v", err)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(report)
	}
}

// AskCollect has the server that runs on dir collect garbage.
func AskCollect(ctx context.Context, dir string, policy Policy, dryRun bool) (Report, error) {
	path := filepath.Join(dir, adminSocket)
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Minute, errors.New("the registry took longer than half an hour"))
	defer cancel()
	var dialer net.Dialer
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", path) },
	}}
	body, err := json.Marshal(order{policy, dryRun})
	if err != nil {
		return Report{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://registry/gc", bytes.NewReader(body))
	if err != nil {
		return Report{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return Report{}, fmt.Errorf("cannot reach the registry that runs on %q: %w", dir, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var answer struct{ Errors []struct{ Message string } }
		_ = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&answer)
		if len(answer.Errors) == 0 {
			return Report{}, fmt.Errorf("the registry answered %s", resp.Status)
		}
		if resp.StatusCode == http.StatusServiceUnavailable {
			return Report{}, fmt.Errorf("%w: %s", ErrBusy, answer.Errors[0].Message)
		}
		return Report{}, errors.New(answer.Errors[0].Message)
	}
	var report Report
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
		return Report{}, fmt.Errorf("cannot read the registry's answer: %w", err)
	}
	return report, nil
}
