package github

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAStateIsTakenOnce(t *testing.T) {
	p := &appPage{host: "127.0.0.1:9", entry: "/secret", state: "s", codes: make(chan string, 1)}
	for _, want := range []int{http.StatusOK, http.StatusGone} {
		w := httptest.NewRecorder()
		p.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1:9/made?code=c&state=s", nil))
		if w.Code != want {
			t.Errorf("answered %d, want %d", w.Code, want)
		}
		if want == http.StatusOK {
			if got := <-p.codes; got != "c" {
				t.Errorf("code %q", got)
			}
		}
	}
}
