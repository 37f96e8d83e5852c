package scaleset

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/actions/scaleset"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/runner"
)

const (
	setsPath   = "runtime/runnerscalesets"
	groupsPath = "runtime/runnergroups/"
	// messageKind is the one kind of message that there is.
	messageKind = "RunnerScaleSetJobMessages"
	// defaultGroup is the id of the group "Default" everywhere.
	defaultGroup = 1
)

func setPath(id int, more ...string) string {
	return strings.Join(append([]string{setsPath, strconv.Itoa(id)}, more...), "/")
}

// call is do, bounded.
func (s *Service) call(ctx context.Context, r request, v any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, callTimeout, errors.New("the Actions service does not answer in time"))
	defer cancel()
	some, err := s.do(ctx, r, v)
	if err == nil && v != nil && !some {
		err = errNoAnswer
	}
	return err
}

// sets returns the scale sets of the scope; of one group unless that is 0, of
// one name unless that is empty.
func (s *Service) sets(ctx context.Context, group int, name string) ([]scaleset.RunnerScaleSet, error) {
	q := url.Values{}
	if group != 0 {
		q.Set("runnerGroupId", strconv.Itoa(group))
	}
	if name != "" {
		q.Set("name", name)
	}
	var got struct {
		Value *[]scaleset.RunnerScaleSet `json:"value"`
	}
	err := s.call(ctx, request{method: http.MethodGet, path: setsPath, query: q}, &got)
	if err == nil && got.Value == nil {
		err = errNoAnswer
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the scale sets of %s: %w", s.client.Scope(), err)
	}
	return *got.Value, nil
}

func (s *Service) set(ctx context.Context, id int) (scaleset.RunnerScaleSet, error) {
	var got scaleset.RunnerScaleSet
	err := s.call(ctx, request{method: http.MethodGet, path: setPath(id)}, &got)
	if err == nil && got.ID != id {
		err = errNoAnswer
	}
	if err != nil {
		return got, fmt.Errorf("cannot look at scale set %d: %w", id, err)
	}
	return got, nil
}

func (s *Service) create(ctx context.Context, name string, group int, labels []string) (scaleset.RunnerScaleSet, error) {
	in := scaleset.RunnerScaleSet{Name: name, RunnerGroupID: group}
	for _, l := range labels {
		in.Labels = append(in.Labels, scaleset.Label{Type: "System", Name: l})
	}
	var got scaleset.RunnerScaleSet
	err := s.call(ctx, request{method: http.MethodPost, path: setsPath, body: in}, &got)
	if err == nil && got.ID == 0 {
		err = errNoAnswer
	}
	if err != nil {
		return got, fmt.Errorf("cannot make scale set %q: %w", name, err)
	}
	return got, nil
}

// remove deletes a set; one that is gone is no error. While runners of it
// execute jobs it stays: runner.ErrBusy.
func (s *Service) remove(ctx context.Context, id int) error {
	err := s.call(ctx, request{method: http.MethodDelete, path: setPath(id)}, nil)
	if err != nil && statusOf(err) != http.StatusNotFound {
		return fmt.Errorf("cannot delete scale set %d: %w", id, err)
	}
	return nil
}

// group returns the id of a runner group.
func (s *Service) group(ctx context.Context, name string) (int, error) {
	if name == "" || strings.EqualFold(name, "default") {
		return defaultGroup, nil
	}
	var got struct {
		Value []scaleset.RunnerGroup `json:"value"`
	}
	q := url.Values{"groupName": {name}}
	if err := s.call(ctx, request{method: http.MethodGet, path: groupsPath, query: q}, &got); err != nil {
		return 0, fmt.Errorf("cannot find runner group %q: %w", name, err)
	}
	for _, g := range got.Value {
		if strings.EqualFold(g.Name, name) {
			return g.ID, nil
		}
	}
	return 0, fmt.Errorf("there is no runner group %q in %s: make it in the scope's settings, or correct the pool's group", name, s.client.Scope())
}

// jit registers a runner of a set.
func (s *Service) jit(ctx context.Context, set int, name, workFolder string) (runner.Credential, error) {
	if workFolder == "" {
		workFolder = "_work"
	}
	var got scaleset.RunnerScaleSetJitRunnerConfig
	err := s.call(ctx, request{
		method: http.MethodPost, path: setPath(set, "generatejitconfig"),
		body: scaleset.RunnerScaleSetJitRunnerSetting{Name: name, WorkFolder: workFolder},
	}, &got)
	if err == nil {
		if _, bad := base64.StdEncoding.DecodeString(got.EncodedJITConfig); bad != nil || got.EncodedJITConfig == "" || got.Runner == nil || got.Runner.ID == 0 {
			err = errNoAnswer
		}
	}
	if err != nil {
		return runner.Credential{}, fmt.Errorf("cannot register runner %q with scale set %d: %w", name, set, err)
	}
	return runner.Credential{
		ID: int64(got.Runner.ID), Env: map[string]secret.String{github.JITConfigKey: secret.New(got.EncodedJITConfig)},
	}, nil
}

// session is the right to hear a set's messages.
type session struct {
	set        int
	id         string
	queue      *url.URL
	token      secret.String
	statistics *scaleset.RunnerScaleSetStatistic
}

// take reads a session, as opening and refreshing answer it.
func (s *Service) take(ctx context.Context, r request, set int) (session, error) {
	var got struct {
		ID         string                            `json:"sessionId"`
		Queue      string                            `json:"messageQueueUrl"`
		Token      secret.String                     `json:"messageQueueAccessToken"`
		Statistics *scaleset.RunnerScaleSetStatistic `json:"statistics"`
	}
	if err := s.call(ctx, r, &got); err != nil {
		return session{}, err
	}
	u, err := github.Confidential(got.Queue)
	if err != nil || got.ID == "" || got.Token.Empty() {
		return session{}, errors.Join(errNoAnswer, err)
	}
	return session{set, got.ID, u, got.Token, got.Statistics}, nil
}

// open begins the set's only session. While there is another, the error is a
// conflict, of which see holderOf.
func (s *Service) open(ctx context.Context, set int, owner string) (session, error) {
	return s.take(ctx, request{
		method: http.MethodPost, path: setPath(set, "sessions"),
		body: map[string]string{"sessionId": "00000000-0000-0000-0000-000000000000", "ownerName": owner},
	}, set)
}

func (s *Service) refresh(ctx context.Context, old session) (session, error) {
	return s.take(ctx, request{method: http.MethodPatch, path: setPath(old.set, "sessions", old.id)}, old.set)
}

func (s *Service) close(ctx context.Context, of session) error {
	return s.call(ctx, request{method: http.MethodDelete, path: setPath(of.set, "sessions", of.id)}, nil)
}

// message is what the service tells of a set.
type message struct {
	id         int64
	statistics *scaleset.RunnerScaleSetStatistic
	available  []scaleset.JobAvailable
	assigned   []scaleset.JobAssigned
	started    []scaleset.JobStarted
	completed  []scaleset.JobCompleted
	unread     int // job messages that cannot be read
}

// poll waits for the first message after the last one, for some 50 s; nil:
// there is none. Capacity is how many jobs the set may hold in all.
func (s *Service) poll(ctx context.Context, of session, last int64, capacity int) (*message, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, pollTimeout, errSlow)
	defer cancel()
	u := *of.queue
	if last > 0 {
		q := u.Query()
		q.Set("lastMessageId", strconv.FormatInt(last, 10))
		u.RawQuery = q.Encode()
	}
	var got struct {
		ID         int64                             `json:"messageId"`
		Kind       string                            `json:"messageType"`
		Body       string                            `json:"body"`
		Statistics *scaleset.RunnerScaleSetStatistic `json:"statistics"`
	}
	some, err := s.do(ctx, request{method: http.MethodGet, at: &u, token: of.token, capacity: &capacity}, &got)
	if err != nil || !some {
		return nil, err // without a body: nothing came, whatever the status
	}
	if got.ID <= 0 {
		return nil, errNoAnswer
	}
	m := &message{id: got.ID, statistics: got.Statistics}
	if got.Kind != messageKind || got.Body == "" {
		return m, nil
	}
	m.parse([]byte(got.Body))
	return m, nil
}

// errSlow: the service did not answer a poll, not even that nothing came.
var errSlow = errors.New("the Actions service does not answer a poll in time")

// parse sorts job messages; those of unknown kinds are left out, and those that
// cannot be read are counted: one of them must not hold back the others.
func (m *message) parse(body []byte) {
	var all []json.RawMessage
	if err := json.Unmarshal(body, &all); err != nil {
		m.unread++
		return
	}
	for _, raw := range all {
		var kind scaleset.JobMessageType
		err := json.Unmarshal(raw, &kind)
		switch kind.MessageType {
		case scaleset.MessageTypeJobAvailable:
			err = add(raw, &m.available)
		case scaleset.MessageTypeJobAssigned:
			err = add(raw, &m.assigned)
		case scaleset.MessageTypeJobStarted:
			err = add(raw, &m.started)
		case scaleset.MessageTypeJobCompleted:
			err = add(raw, &m.completed)
		}
		if err != nil {
			m.unread++
		}
	}
}

func add[T any](raw json.RawMessage, to *[]T) error {
	var v T
	err := json.Unmarshal(raw, &v)
	if err == nil {
		*to = append(*to, v)
	}
	return err
}

// acknowledge ends a message: it does not come again.
func (s *Service) acknowledge(ctx context.Context, of session, id int64) error {
	return s.call(ctx, request{method: http.MethodDelete, at: of.queue.JoinPath(strconv.FormatInt(id, 10)), token: of.token}, nil)
}

// acquire takes jobs that are offered.
func (s *Service) acquire(ctx context.Context, of session, ids []int64) error {
	return s.call(ctx, request{method: http.MethodPost, path: setPath(of.set, "acquirejobs"), body: ids, token: of.token}, nil)
}
