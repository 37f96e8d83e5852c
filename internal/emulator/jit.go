package emulator

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"
)

// postJIT registers an ephemeral runner and answers with everything its program needs.
func (e *Emulator) postJIT(w http.ResponseWriter, r *http.Request, s scope) {
	var in struct {
		Name       string   `json:"name"`
		Group      *int64   `json:"runner_group_id"`
		Labels     []string `json:"labels"`
		WorkFolder string   `json:"work_folder"`
	}
	if !readJSON(w, r, &in) {
		return
	}
	missing := func(key string) {
		githubError(w, http.StatusUnprocessableEntity,
			fmt.Sprintf("Invalid request.\n\nInvalid input: object is missing required key: %s.", key))
	}
	switch {
	case in.Name == "":
		missing("name")
		return
	case in.Group == nil:
		missing("runner_group_id")
		return
	case len(in.Labels) == 0:
		missing("labels")
		return
	case len(in.Labels) > 100:
		githubError(w, http.StatusUnprocessableEntity, "Invalid request.\n\nNo more than 100 items are allowed; labels has too many.")
		return
	}
	g, ok := e.groupByID(*in.Group)
	if !ok {
		githubError(w, http.StatusNotFound, "Not Found")
		return
	}
	key, err := e.keys.get()
	if err != nil {
		githubError(w, http.StatusInternalServerError, err.Error())
		return
	}
	base := e.baseFor(r)
	found := &runner{
		name: in.Name, scope: s, group: g, labels: makeLabels(in.Labels, "custom"), ephemeral: true,
		workFolder: in.WorkFolder, key: &key.PublicKey, tokenURL: base + "/oauth/token",
	}
	if found.workFolder == "" {
		found.workFolder = "_work"
	}
	e.mu.Lock()
	if e.named(s, in.Name) != nil {
		e.mu.Unlock()
		githubError(w, http.StatusConflict, "Already exists - A runner with the name *** already exists.")
		return
	}
	e.admit(found)
	out := e.rest(found)
	e.mu.Unlock()
	writeJSON(w, http.StatusCreated, map[string]any{"runner": out, "encoded_jit_config": jitConfig(found, key, base)})
}

// jitConfig packs the three files that config.sh would have written. Numbers and booleans are texts,
// which is what every runner program understands.
func jitConfig(r *runner, key *rsa.PrivateKey, base string) string {
	files := map[string]any{
		".runner": map[string]string{
			"AgentId": strconv.FormatInt(r.id, 10), "AgentName": r.name,
			"PoolId": strconv.FormatInt(r.group.id, 10), "PoolName": r.group.name,
			"DisableUpdate": "True", "Ephemeral": "True", "WorkFolder": r.workFolder,
			"GitHubUrl": base + "/" + r.scope.path(), "ServerUrl": base + "/tenant/",
			"UseV2Flow": "True", "ServerUrlV2": base + "/broker/",
		},
		".credentials": map[string]any{
			"Scheme": "OAuth",
			"Data": map[string]string{
				"ClientId": r.clientID, "AuthorizationUrl": r.tokenURL, "RequireFipsCryptography": "True",
			},
		},
		".credentials_rsaparams": rsaParams(key),
	}
	blob := map[string]string{}
	for name, content := range files {
		b, err := json.Marshal(content)
		if err != nil { // texts only
			panic(err)
		}
		blob[name] = base64.StdEncoding.EncodeToString(b)
	}
	b, err := json.Marshal(blob)
	if err != nil {
		panic(err)
	}
	return base64.StdEncoding.EncodeToString(b)
}

// rsaParams writes a private key as .NET reads it: big-endian, each part padded on the left to its full
// length. Without the padding about one key in fifteen would be refused.
func rsaParams(key *rsa.PrivateKey) map[string]string {
	size := key.Size()
	part := func(n *big.Int, length int) string {
		return base64.StdEncoding.EncodeToString(n.FillBytes(make([]byte, length)))
	}
	return map[string]string{
		"modulus":  part(key.N, size),
		"exponent": base64.StdEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes()),
		"d":        part(key.D, size),
		"p":        part(key.Primes[0], size/2), "q": part(key.Primes[1], size/2),
		"dp": part(key.Precomputed.Dp, size/2), "dq": part(key.Precomputed.Dq, size/2),
		"inverseQ": part(key.Precomputed.Qinv, size/2),
	}
}

// publicKey reads the two numbers that a runner registers with.
func publicKey(modulus, exponent string) (*rsa.PublicKey, error) {
	n, err := base64.StdEncoding.DecodeString(strings.TrimSpace(modulus))
	if err != nil || len(n) < 128 {
		return nil, fmt.Errorf("cannot read the key's modulus of %d bytes", len(n))
	}
	x, err := base64.StdEncoding.DecodeString(strings.TrimSpace(exponent))
	if err != nil || len(x) == 0 || len(x) > 4 {
		return nil, fmt.Errorf("cannot read the key's exponent of %d bytes", len(x))
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(x).Int64())}, nil
}
