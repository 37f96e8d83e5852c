package github

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Call is one request that was sent to GitHub's API.
type Call struct {
	Method string
	// Route is the path with its names and numbers left out, such as
	// "orgs/{org}/actions/runners/{id}".
	Route  string
	Status int // of the reply; 0: there was none
	Took   time.Duration
}

// observed tells somebody of each request to GitHub's own host.
type observed struct {
	next http.RoundTripper
	base *url.URL
	tell func(Call)
	now  func() time.Time
}

// RoundTrip implements http.RoundTripper.
func (o *observed) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != o.base.Host {
		return o.next.RoundTrip(req)
	}
	start := o.now()
	res, err := o.next.RoundTrip(req)
	c := Call{Method: req.Method, Route: route(strings.TrimPrefix(req.URL.Path, o.base.Path)), Took: o.now().Sub(start)}
	if err == nil {
		c.Status = res.StatusCode
	}
	o.tell(c)
	return res, err
}

// scopeWords are the names that follow the kinds of scopes in a path.
var scopeWords = map[string][]string{
	"repos": {"{owner}", "{repo}"}, "orgs": {"{org}"}, "enterprises": {"{enterprise}"}, "users": {"{user}"},
}

// routeWords are the words of paths that we know; there are no others in a
// Route, so that there are not too many.
var routeWords = strings.Fields(`actions app attempts access_tokens downloads generate-jitconfig installation installations jobs labels
	logs organizations rate_limit registration-token remove-token repositories repository-access runner-groups
	runner-registration runners runs runtime user`)

func route(path string) string {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	names := scopeWords[parts[0]]
	for i, part := range parts {
		switch {
		case i == 0 && names != nil:
		case i >= 1 && i <= len(names):
			parts[i] = names[i-1]
		case part != "" && strings.Trim(part, "0123456789") == "":
			parts[i] = "{id}"
		case !slices.Contains(routeWords, part):
			parts[i] = "{name}"
		}
	}
	return strings.Join(parts[:min(len(parts), 8)], "/")
}
