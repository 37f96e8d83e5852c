package console

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long what lets somebody in is good for, and how much of it there may be.
const (
	LinkLife    = 2 * time.Minute
	SessionIdle = time.Hour
	SessionLife = 24 * time.Hour

	maxLinks    = 16
	maxSessions = 64
)

// gate decides who gets in. Tokens are told apart by their digests, which have
// one length, in a time that tells nothing of them.
type gate struct {
	cookie string   // its name: agents of one machine share the cookies of its address
	hosts  []string // further names that the console may be called by, lower case

	mu       sync.Mutex
	links    []link
	sessions []*session
}

type digest [sha256.Size]byte

type link struct {
	token digest
	ends  time.Time
}

// session is one browser that was let in.
type session struct {
	id    digest
	csrf  string // the word that its forms carry
	ends  time.Time
	used  time.Time
	ended chan struct{} // closed when it ends early
}

func sum(text string) digest { return sha256.Sum256([]byte(text)) }

func same(a, b digest) bool { return subtle.ConstantTimeCompare(a[:], b[:]) == 1 }

// mint makes a link's token. The oldest link gives way if there are too many.
func (g *gate) mint(now time.Time) (token string, ends time.Time) {
	token, ends = rand.Text(), now.Add(LinkLife)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.links = append(slices.DeleteFunc(g.links, func(l link) bool { return !now.Before(l.ends) }), link{sum(token), ends})
	g.links = g.links[max(0, len(g.links)-maxLinks):]
	return token, ends
}

// redeem turns a link's token into a session, once. It returns the session's
// own token; "" if the link is not good (any more).
func (g *gate) redeem(token string, now time.Time) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	want, found := sum(token), -1
	for i, l := range g.links {
		if same(l.token, want) && now.Before(l.ends) {
			found = i
		}
	}
	if found < 0 {
		return ""
	}
	g.links = slices.Delete(g.links, found, found+1)
	id := rand.Text()
	s := &session{id: sum(id), csrf: rand.Text(), ends: now.Add(SessionLife), used: now, ended: make(chan struct{})}
	g.sessions = append(g.alive(now), s)
	if len(g.sessions) > maxSessions { // the one that was used longest ago gives way
		oldest := slices.MinFunc(g.sessions, func(a, b *session) int { return a.used.Compare(b.used) })
		g.drop(oldest)
	}
	return id
}

// enter returns the session of a request; nil: it has none.
func (g *gate) enter(r *http.Request, now time.Time) *session {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions = g.alive(now)
	var found *session
	for _, c := range r.CookiesNamed(g.cookie) {
		id := sum(c.Value)
		for _, s := range g.sessions {
			if same(s.id, id) {
				found = s
			}
		}
	}
	if found != nil {
		found.used = now
	}
	return found
}

// goesOn says whether a session goes on, and counts an open page as its use.
func (g *gate) goesOn(s *session, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sessions = g.alive(now)
	if !slices.Contains(g.sessions, s) {
		return false
	}
	s.used = now
	return true
}

// leave ends a session.
func (g *gate) leave(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.drop(s)
}

// alive returns the sessions that have not ended. The caller holds mu.
func (g *gate) alive(now time.Time) []*session {
	for _, s := range g.sessions {
		if !now.Before(s.ends) || now.Sub(s.used) >= SessionIdle {
			g.drop(s)
		}
	}
	return g.sessions
}

// drop ends a session that may have ended. The caller holds mu.
func (g *gate) drop(s *session) {
	if i := slices.Index(g.sessions, s); i >= 0 {
		close(s.ended)
		g.sessions = slices.Concat(g.sessions[:i], g.sessions[i+1:])
	}
}

// knownHost says whether the console may be called by the name of a Host
// header. A loopback address may have any port: ssh -L changes it.
func (g *gate) knownHost(host string) bool {
	host = strings.ToLower(host)
	if slices.Contains(g.hosts, host) {
		return true
	}
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	if name == "localhost" || slices.Contains(g.hosts, name) {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.IsLoopback()
}

// secure says whether a host is reached through a proxy with TLS: every name
// that the configuration allows is.
func (g *gate) secure(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	return slices.Contains(g.hosts, strings.ToLower(host)) || slices.Contains(g.hosts, strings.ToLower(name))
}

// ours says whether a request that changes something comes from a page of this
// session. A browser says where a request comes from; what is no browser has
// no session.
func (s *session) ours(r *http.Request) bool {
	switch from := r.Header.Get("Sec-Fetch-Site"); from {
	case "same-origin":
	case "":
		origin, err := url.Parse(r.Header.Get("Origin"))
		if err != nil || origin.Host == "" || !strings.EqualFold(origin.Host, r.Host) {
			return false
		}
	default:
		return false
	}
	return same(sum(s.csrf), sum(r.PostFormValue(csrfField)))
}

// csrfField is the form field with the session's word.
const csrfField = "csrf"
