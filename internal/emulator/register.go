package emulator

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// postRegistration begins config --token, in either flow: it exchanges the registration token.
func (e *Emulator) postRegistration(w http.ResponseWriter, r *http.Request) {
	var in struct {
		URL   string `json:"url"`
		Event string `json:"runner_event"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	s, known := e.scopeOf(in.URL)
	allowed, ok := e.granted(bearer(r))
	if !known || !ok || !allowed.is(s) {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	base, life := askedAt(r), e.opts.ScaleSets.AdminTokenLife
	token := e.mint(kindManagement, s.kind+"/"+s.name, life, nil)
	if e.opts.ScaleSets.NoExpiry {
		token = e.mint(kindManagement, s.kind+"/"+s.name, life, jwt.MapClaims{"exp": nil})
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"url": base + "/tenant/", "token_schema": "OAuthAccessToken", "token": token, "use_v2_flow": e.opts.Flow == FlowV2,
	})
}

// askedAt is the emulator's address as the maker of a request reached it. What is
// for the maker itself, a manager on the host, is told under it, and not under
// the address that guests are given.
func askedAt(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// registration is what a runner says about itself when it registers.
type registration struct {
	name, version, os string
	scope             scope
	group             int64
	labels            []label
	ephemeral         bool
	modulus, exponent string
	replace           bool
}

// register adds a runner, or says with which status and words it is refused.
func (e *Emulator) register(in registration, base string) (*runner, int, string) {
	key, err := publicKey(in.modulus, in.exponent)
	if err != nil {
		return nil, http.StatusUnprocessableEntity, err.Error()
	}
	g, ok := e.groupByID(in.group)
	if !ok {
		return nil, http.StatusNotFound, fmt.Sprintf("there is no runner group %d", in.group)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if old := e.named(in.scope, in.name); old != nil {
		if !in.replace || old.busy() {
			return nil, http.StatusConflict, fmt.Sprintf("a runner exists with the same name: %s", in.name)
		}
		e.remove(old, deleted)
	}
	found := &runner{
		name: in.name, scope: in.scope, group: g, labels: in.labels, ephemeral: in.ephemeral, workFolder: "_work",
		version: in.version, os: osName(in.os), key: key, tokenURL: base + "/oauth/token",
	}
	e.admit(found)
	return found, 0, ""
}

// postRegister is the V2 way to register.
func (e *Emulator) postRegister(w http.ResponseWriter, r *http.Request) {
	var in struct {
		URL       string `json:"url"`
		Group     int64  `json:"group_id"`
		Name      string `json:"name"`
		Version   string `json:"version"`
		Ephemeral bool   `json:"ephemeral"`
		Labels    []any  `json:"labels"`
		PublicKey string `json:"public_key"`
		Replace   bool   `json:"replace"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	s, ok := e.scopeOf(in.URL)
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	var key struct{ Modulus, Exponent string }
	if err := xml.Unmarshal([]byte(in.PublicKey), &key); err != nil {
		githubError(w, http.StatusUnprocessableEntity, "Invalid request.\n\npublic_key is no RSAKeyValue.")
		return
	}
	base := e.baseFor(r)
	found, status, why := e.register(registration{
		name: in.Name, version: in.Version, scope: s, group: in.Group, labels: anyLabels(in.Labels),
		ephemeral: in.Ephemeral, modulus: key.Modulus, exponent: key.Exponent, replace: in.Replace,
	}, base)
	if found == nil {
		githubError(w, status, why)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"id": found.id, "name": found.name,
		"authorization": map[string]string{
			"authorization_url": found.tokenURL, "server_url": base + "/broker/", "client_id": found.clientID,
		},
	})
}

// anyLabels reads labels that are texts or objects with a name and a type, in either spelling.
func anyLabels(in []any) []label {
	var out []label
	for _, v := range in {
		name, kind := "", "custom"
		switch l := v.(type) {
		case string:
			name = l
		case map[string]any:
			for k, v := range l {
				switch s, _ := v.(string); strings.ToLower(k) {
				case "name":
					name = s
				case "type":
					if s == "system" {
						kind = "read-only"
					}
				}
			}
		}
		if name != "" && !slices.ContainsFunc(out, func(l label) bool { return strings.EqualFold(l.name, name) }) {
			out = append(out, label{name, kind})
		}
	}
	return out
}

// asManager answers requests that carry the token of postRegistration; without one they are asked for it.
func (e *Emulator) asManager(h func(http.ResponseWriter, *http.Request, scope)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		kind, name, ok := strings.Cut(e.subject(bearer(r), kindManagement), "/")
		if !ok {
			unauthorized(w)
			return
		}
		h(w, r, scope{kind, name})
	}
}

// asPoolUser also lets runners in, which look whether their new connection is good.
func (e *Emulator) asPoolUser(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if e.subject(bearer(r), kindManagement) == "" && e.subject(bearer(r), kindRunner) == "" {
			unauthorized(w)
			return
		}
		h(w, r)
	}
}

func (e *Emulator) listPools(w http.ResponseWriter, _ *http.Request) {
	var pools []map[string]any
	for _, g := range e.groups() {
		pools = append(pools, map[string]any{"id": g.id, "name": g.name, "isHosted": false, "isInternal": g.id == 1})
	}
	writeJSON(w, http.StatusOK, map[string]any{"count": len(pools), "value": pools})
}

// postLegacySession moves a runner that begins with the V1 session to the broker. The address has no slash
// at its end, the one exception: the runner that needs this appends "/session".
func (e *Emulator) postLegacySession(w http.ResponseWriter, r *http.Request, found *runner) {
	e.mu.Lock()
	gone := found.gone != registered
	e.mu.Unlock()
	if gone {
		vssError(w, http.StatusNotFound, "TaskAgentNotFoundException", "the runner's registration was not found")
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"sessionId": newGUID(), "ownerName": "RUNNER",
		"agent":                  map[string]any{"id": found.id, "name": found.name, "ephemeral": found.ephemeral},
		"brokerMigrationMessage": map[string]string{"brokerBaseUrl": e.baseFor(r) + "/broker"},
	})
}

// getConnectionData maps the fixed GUIDs of the legacy services to our paths. All that runners look up are
// named, since one of them cannot bear to miss any; those of the V1 job flow lead nowhere.
func (e *Emulator) getConnectionData(w http.ResponseWriter, _ *http.Request) {
	const pools, plans = "_apis/distributedtask/pools", "_apis/distributedtask/plans/{scopeIdentifier}/{hubName}/{planId}"
	var services []map[string]any
	for _, s := range []struct{ id, name, path string }{
		{"a8c47e17-4d56-4a56-92bb-de7ea7dc65be", "pools", pools},
		{"e298ef32-5878-4cab-993c-043836571f42", "agents", pools + "/{poolId}/agents/{agentId}"},
		{"134e239e-2df3-4794-a6f6-24f1f19ec8dc", "sessions", pools + "/{poolId}/sessions/{sessionId}"},
		{"c3a054f6-7a8a-49c0-944e-3a8e5d7adfd7", "messages", pools + "/{poolId}/messages/{messageId}"},
		{"fc825784-c92a-4299-9221-998a02d1b54f", "jobrequests", pools + "/{poolId}/jobrequests/{requestId}"},
		{"8893bc5b-35b2-4be7-83cb-99e683551db4", "records", plans + "/timelines/{timelineId}/records"},
		{"83597576-cc2c-453c-bea6-2882ae6a1653", "timelines", plans + "/timelines/{timelineId}"},
		{"858983e4-19bd-4c5e-864c-507b59b58b12", "feed", plans + "/timelines/{timelineId}/records/{recordId}/feed"},
		{"46f5667d-263a-4684-91b1-dff7fdcf64e2", "logs", plans + "/logs/{logId}"},
		{"7898f959-9cdf-4096-b29e-7f293031629e", "attachments", plans + "/timelines/{timelineId}/records/{recordId}/attachments/{type}/{name}"},
		{"557624af-b29e-4c20-8ab0-0399d2204f3f", "events", plans + "/events"},
		{"27d7f831-88c1-4719-8ca1-6a061dad90eb", "actiondownloadinfo", plans + "/actiondownloadinfo"},
		{"8ffcd551-079c-493a-9c02-54346299d144", "packages", "_apis/distributedtask/packages/{packageType}/{platform}/{version}"},
		{"8cc1b02b-ae49-4516-b5ad-4f9b29967c30", "updates", pools + "/{poolId}/agents/{agentId}/updates"},
	} {
		services = append(services, map[string]any{
			"serviceType": "distributedtask", "identifier": s.id, "displayName": s.name, "relativePath": s.path,
			"relativeToSetting": "fullyQualified", "serviceOwner": "00000000-0000-0000-0000-000000000000",
			"resourceVersion": 6, "minVersion": "1.0", "maxVersion": "12.0", "releasedVersion": "0.0",
		})
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"instanceId":          e.instance,
		"locationServiceData": map[string]any{"serviceDefinitions": services},
	})
}
