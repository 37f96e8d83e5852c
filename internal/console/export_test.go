package console

import (
	"net/http"
	"time"
)

// Gate is a gate without a server.
type Gate struct{ g gate }

// NewGate returns an empty one.
func NewGate() *Gate { return &Gate{gate{cookie: "c"}} }

// Mint makes a link's token.
func (g *Gate) Mint(now time.Time) string { token, _ := g.g.mint(now); return token }

// Redeem turns a link's token into a session's.
func (g *Gate) Redeem(token string, now time.Time) string { return g.g.redeem(token, now) }

// Good says whether a session goes on, and uses it.
func (g *Gate) Good(id string, now time.Time) bool {
	r := &http.Request{Header: http.Header{}}
	r.AddCookie(&http.Cookie{Name: "c", Value: id})
	return g.g.enter(r, now) != nil
}

// Count returns how many links and sessions there are.
func (g *Gate) Count() (links, sessions int) { return len(g.g.links), len(g.g.sessions) }
