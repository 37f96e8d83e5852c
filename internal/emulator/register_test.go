package emulator_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/mirego/tasuki/internal/base/secret"
	"github.com/mirego/tasuki/internal/emulator"
	"github.com/mirego/tasuki/internal/emulator/protorunner"
)

// registrar configures runners by token, call by call.
type registrar struct {
	*hand
	key *rsa.PrivateKey
}

func newRegistrar(t *testing.T, w *world) *registrar {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return &registrar{&hand{t: t, w: w}, key}
}

// begin gets a registration token and, for the V1 branch, the management token.
func (g *registrar) begin() (registration, management string) {
	g.t.Helper()
	token, _, err := g.w.rest.Actions.CreateRegistrationToken(g.t.Context(), owner, repo)
	if err != nil {
		g.t.Fatal(err)
	}
	g.token = token.GetToken()
	_, body := g.call(g.t.Context(), "POST", "/api/v3/actions/runner-registration",
		`{"url":"http://github.test/octo/demo","runner_event":"register"}`)
	var out struct{ URL, Token string }
	g.decode(body, &out)
	if out.URL != g.w.base+"/tenant/" {
		g.t.Errorf("the tenant is %q", out.URL)
	}
	return token.GetToken(), out.Token
}

func (g *registrar) numbers() (modulus, exponent string) {
	return base64.StdEncoding.EncodeToString(g.key.N.Bytes()),
		base64.StdEncoding.EncodeToString(big.NewInt(int64(g.key.E)).Bytes())
}

// register does the V2 call.
func (g *registrar) register(name string, replace bool) (int, string) {
	g.t.Helper()
	modulus, exponent := g.numbers()
	body, err := json.Marshal(map[string]any{
		"url": "http://github.test/octo/demo", "group_id": 1, "name": name, "version": "2.336.0", "ephemeral": false,
		"labels": []string{"self-hosted", "linux"}, "replace": replace,
		"public_key": fmt.Sprintf("<RSAKeyValue><Modulus>%s</Modulus><Exponent>%s</Exponent></RSAKeyValue>", modulus, exponent),
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return g.call(g.t.Context(), "POST", "/actions/runners/register", string(body))
}

// listen makes the registered runner connect.
func (g *registrar) listen(reply string) {
	g.t.Helper()
	var out struct {
		Authorization struct {
			URL    string `json:"authorization_url"`
			Server string `json:"server_url"`
			Client string `json:"client_id"`
		}
	}
	g.decode(reply, &out)
	g.config = &protorunner.Config{ClientID: out.Authorization.Client, TokenURL: out.Authorization.URL, Broker: out.Authorization.Server, Key: g.key}
	g.connect()
}

func TestARunnerThatIsNotEphemeralTakesJobAfterJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Token: secret.New("s3cret")})
		g := newRegistrar(t, w)
		g.begin()
		code, reply := g.register("pet", false)
		if code != http.StatusOK {
			t.Fatalf("registering is answered %d %s", code, reply)
		}
		if code, _ := g.register("PET", false); code != http.StatusConflict {
			t.Errorf("the same name again is answered %d, want 409", code)
		}
		g.listen(reply)
		for range 2 {
			run := submit(t, w.Emulator, oneJob)
			o := g.poll(t.Context(), "Online")
			_, message := g.call(t.Context(), "POST", "/run/acquirejob", `{"jobMessageId":"`+o.Request+`"}`)
			g.complete(message)
			if got := finishAt(t, w, run).Conclusion; got != "success" {
				t.Errorf("the run is %q", got)
			}
			if s := w.State().Runners; len(s) != 1 || !s[0].Online || s[0].Busy {
				t.Errorf("the runner after its job is %+v", s)
			}
		}
		old := w.State().Runners[0].ID
		g.begin()
		if code, reply = g.register("pet", true); code != http.StatusOK {
			t.Errorf("replacing is answered %d %s", code, reply)
		}
		if s := w.State().Runners; len(s) != 1 || s[0].ID == old || s[0].Online {
			t.Errorf("the runner after its replacement is %+v", s)
		}
	})
}

func TestRegistrationTokensAreForOneScope(t *testing.T) {
	w := start(t, emulator.Options{})
	g := newRegistrar(t, w)
	g.begin()
	for url, want := range map[string]int{
		"http://h/octo/demo":      200,
		"http://h/OCTO/Demo/":     200,
		"http://h/octo":           404, // the token is the repository's
		"http://h/somebody/else":  404,
		"http://h/":               404,
		"http://h/enterprises/ab": 404,
		"nonsense":                404,
	} {
		if code, _ := g.call(t.Context(), "POST", "/actions/runner-registration", `{"url":"`+url+`","runner_event":"register"}`); code != want {
			t.Errorf("%s is answered %d, want %d", url, code, want)
		}
	}
	g.token = "AWRONG"
	if code, _ := g.call(t.Context(), "POST", "/actions/runner-registration", `{"url":"http://h/octo/demo"}`); code != 404 {
		t.Errorf("a wrong token is answered %d, want 404", code)
	}
}

func TestTheLegacyAgentsAPI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := bubble(t, emulator.Options{Flow: emulator.FlowV1})
		g := newRegistrar(t, w)
		const agents = "/tenant/_apis/distributedtask/pools/1/agents"
		if code, _ := g.call(t.Context(), "GET", agents, ""); code != http.StatusUnauthorized {
			t.Errorf("without a token the list is answered %d, want 401", code)
		}
		_, g.token = g.begin()
		modulus, exponent := g.numbers()
		agent := `{"Name":"old","Version":"2.336.0","Ephemeral":true,"Labels":[{"Name":"self-hosted","Type":"system"},{"Name":"mine","Type":"user"}],
			"Authorization":{"PublicKey":{"Exponent":"` + exponent + `","Modulus":"` + modulus + `"}}}`
		code, reply := g.call(t.Context(), "POST", agents, agent)
		var out struct {
			ID            int64
			Ephemeral     bool
			Authorization struct{ AuthorizationURL, ClientID string }
		}
		g.decode(reply, &out)
		if code != 200 || !out.Ephemeral || out.Authorization.ClientID == "" || out.Authorization.AuthorizationURL != w.base+"/oauth/token" {
			t.Errorf("registering is answered %d %s", code, reply)
		}
		code, reply = g.call(t.Context(), "POST", agents, agent)
		if code != http.StatusConflict || !strings.Contains(reply, `"typeKey":"TaskAgentExistsException"`) {
			t.Errorf("registering again is answered %d %s", code, reply)
		}
		if _, reply = g.call(t.Context(), "GET", agents+"?agentName=OLD", ""); !strings.Contains(reply, `"count":1`) {
			t.Errorf("the list by name is %s", reply)
		}
		if _, reply = g.call(t.Context(), "GET", agents+"?agentName=other", ""); !strings.Contains(reply, `"count":0,"value":[]`) {
			t.Errorf("the list of another name is %s", reply)
		}
		labels, _, err := w.rest.Actions.GetRunner(t.Context(), owner, repo, out.ID)
		if err != nil || labels.Labels[0].GetType() != "read-only" || labels.Labels[1].GetType() != "custom" {
			t.Errorf("over REST it is %v, %v", labels, err)
		}
		if code, _ := g.call(t.Context(), "DELETE", fmt.Sprintf("%s/%d", agents, out.ID), ""); code != http.StatusNoContent {
			t.Errorf("deleting is answered %d", code)
		}
		if n := len(w.State().Runners); n != 0 {
			t.Errorf("%d runners are left", n)
		}
	})
}
