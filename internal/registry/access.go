package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/auth"
)

// accessName is the name under which the library finds our access controller.
const accessName = "tasuki"

// registerAccess makes our controller known to the library, which keeps one
// table for the process. Each app brings its own controller as a parameter.
var registerAccess = sync.OnceValue(func() error {
	return auth.Register(accessName, func(options map[string]any) (auth.AccessController, error) {
		c, ok := options[accessName].(*controller)
		if !ok {
			return nil, errors.New("no access controller was given")
		}
		return c, nil
	})
})

// controller decides who may do what. The server asks it who a request comes
// from before anything else (authenticate); the library asks it for every
// access that a request turns out to need (Authorized). It implements
// auth.AccessController.
type controller struct {
	users     *directory // nil: nobody is asked
	open      bool       // anybody may do everything while there is no file of users
	anonymous bool       // anybody may read
	pace      pace
	denied    func(reason string) // counts refusals
}

// caller is whom a request comes from.
type caller struct {
	name string // "" for nobody that we know
	role Role   // "" for nothing
}

type callerKey struct{}

func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// authenticate puts the caller into the request's context. It answers the
// request itself, and returns false, if the credentials are wrong or too many
// wrong ones came before.
func (c *controller) authenticate(w http.ResponseWriter, r *http.Request) (*http.Request, bool) {
	with := func(who caller) (*http.Request, bool) {
		return r.WithContext(context.WithValue(r.Context(), callerKey{}, who)), true
	}
	if c.users == nil || (c.open && !c.users.exists()) {
		return with(caller{role: Writer})
	}
	name, password, given := r.BasicAuth()
	if !given {
		if c.anonymous {
			return with(caller{role: Reader})
		}
		return with(caller{})
	}
	if u, ok := c.users.remembered(name, password); ok {
		return with(caller{u.Name, u.Role})
	}
	from := remoteHost(r) + " " + name
	if wait := c.pace.wait(from); wait > 0 {
		c.denied("pace")
		w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
		writeError(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many wrong passwords for user %q from here; wait %s", name, wait.Round(time.Second))
		return nil, false
	}
	u, ok, err := c.users.check(name, password)
	switch {
	case err != nil:
		c.denied("users")
		writeError(w, http.StatusServiceUnavailable, "UNAVAILABLE", "the registry cannot read its file of users; its log says why")
		return nil, false
	case !ok:
		c.pace.failed(from)
		c.denied("password")
		challenge(w)
		writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", "user name or password is wrong")
		return nil, false
	}
	c.pace.succeeded(from)
	return with(caller{u.Name, u.Role})
}

// Authorized implements auth.AccessController.
func (c *controller) Authorized(r *http.Request, access ...auth.Access) (*auth.Grant, error) {
	who := callerOf(r.Context())
	for _, a := range access {
		if who.role == Writer || (who.role == Reader && (a.Action == "pull" || a.Type == "registry")) {
			continue
		}
		return nil, c.refuse(who, a)
	}
	if who.role == "" { // /v2/ itself: clients ask here whether they must log in
		return nil, c.refuse(who, auth.Access{})
	}
	grant := &auth.Grant{User: auth.UserInfo{Name: who.name}}
	for _, a := range access {
		grant.Resources = append(grant.Resources, a.Resource)
	}
	return grant, nil
}

func (c *controller) refuse(who caller, a auth.Access) error {
	if who.name == "" {
		c.denied("anonymous")
		what := "log in to use this registry"
		if a.Action != "" && c.anonymous {
			what = fmt.Sprintf("log in as a writer to %s %s", a.Action, a.Name)
		}
		return &refusal{status: http.StatusUnauthorized, code: "UNAUTHORIZED", text: what}
	}
	c.denied("role")
	return &refusal{status: http.StatusForbidden, code: "DENIED", text: fmt.Sprintf("user %q may read only; to %s %s takes a writer", who.name, a.Action, a.Name)}
}

// refusal is an auth.Challenge. The library would answer any with status 401
// and words of its own, so it writes the answer itself, and the recorder drops
// what the library adds.
type refusal struct {
	status     int
	code, text string
}

func (f *refusal) Error() string { return f.text }

// SetHeaders implements auth.Challenge.
func (f *refusal) SetHeaders(r *http.Request, w http.ResponseWriter) {
	if f.status == http.StatusUnauthorized {
		challenge(w)
	}
	writeError(w, f.status, f.code, "%s", f.text)
	if rec, ok := r.Context().Value(recorderKey{}).(*recorder); ok {
		rec.finished = true
	}
}

func challenge(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", `Basic realm="Tasuki registry", charset="UTF-8"`)
}

func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// pace slows down those who guess passwords: some wrong ones are free, then
// each costs a pause, which doubles. Its zero value is ready.
type pace struct {
	mu    sync.Mutex
	tries map[string]guesses
}

type guesses struct {
	wrong int
	until time.Time
	last  time.Time
}

const (
	freeGuesses = 5
	mostPause   = time.Minute
	guessMemory = 15 * time.Minute
	mostGuesses = 10_000 // entries that are remembered
)

// wait is how long this one still has to wait.
func (p *pace) wait(from string) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.tries[from].until)
}

func (p *pace) failed(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.tries == nil {
		p.tries = map[string]guesses{}
	}
	if len(p.tries) >= mostGuesses {
		for k, g := range p.tries {
			if now.Sub(g.last) > guessMemory {
				delete(p.tries, k)
			}
		}
		if len(p.tries) >= mostGuesses {
			clear(p.tries) // a flood of names: each new one costs a comparison anyway
		}
	}
	g := p.tries[from]
	if now.Sub(g.last) > guessMemory {
		g = guesses{}
	}
	g.wrong++
	g.last = now
	if over := g.wrong - freeGuesses; over >= 0 {
		g.until = now.Add(min(time.Second<<min(over, 10), mostPause))
	}
	p.tries[from] = g
}

func (p *pace) succeeded(from string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.tries, from)
}
