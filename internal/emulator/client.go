package emulator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
)

// Client returns a client whose requests reach the emulator in memory, whatever host they name, so that
// tests in a synctest bubble can use it. A reply arrives whole; the live feed, a websocket, is not to be
// had this way.
func (e *Emulator) Client() *http.Client { return &http.Client{Transport: Transport{e.handler}} }

// Transport is an http.RoundTripper that calls a handler on the caller's goroutine.
type Transport struct{ Handler http.Handler }

// RoundTrip implements http.RoundTripper. A handler that aborts looks like a cut connection.
func (t Transport) RoundTrip(req *http.Request) (_ *http.Response, err error) {
	in := req.Clone(req.Context())
	in.RequestURI, in.RemoteAddr = req.URL.RequestURI(), "memory"
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	out := &memoryWriter{header: http.Header{}, status: http.StatusOK}
	defer func() {
		if p := recover(); p == http.ErrAbortHandler {
			err = fmt.Errorf("cannot read the reply: %w", io.ErrUnexpectedEOF)
		} else if p != nil {
			panic(p)
		}
	}()
	t.Handler.ServeHTTP(out, in)
	if err := context.Cause(req.Context()); err != nil {
		return nil, err
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", out.status, http.StatusText(out.status)), StatusCode: out.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: out.header, Request: req,
		Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()),
	}, nil
}

type memoryWriter struct {
	header http.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

func (m *memoryWriter) Header() http.Header { return m.header }

func (m *memoryWriter) WriteHeader(status int) {
	if !m.wrote {
		m.status, m.wrote = status, true
	}
}

func (m *memoryWriter) Write(b []byte) (int, error) {
	m.wrote = true
	return m.body.Write(b)
}
