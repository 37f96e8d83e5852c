package protorunner

import (
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strings"
)

// Config is a JIT configuration, decoded.
type Config struct {
	RunnerID   string
	RunnerName string
	Broker     string // base URL
	ClientID   string
	TokenURL   string
	FIPS       bool // sign with PS256, else RS256
	Key        *rsa.PrivateKey
}

// ParseJIT decodes what generate-jitconfig answers and holds it to what the official runner demands.
func ParseJIT(encoded string) (*Config, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return nil, fmt.Errorf("cannot decode the JIT configuration: %w", err)
	}
	var files map[string][]byte
	if err := json.Unmarshal(raw, &files); err != nil {
		return nil, fmt.Errorf("cannot read the JIT configuration: %w", err)
	}
	var settings struct {
		AgentID, AgentName, PoolID, WorkFolder, ServerURLV2 string
		UseV2Flow, Ephemeral                                string
	}
	var credentials struct {
		Scheme string
		Data   struct{ ClientID, AuthorizationURL, RequireFipsCryptography string }
	}
	var params map[string][]byte
	for name, into := range map[string]any{
		".runner": &settings, ".credentials": &credentials, ".credentials_rsaparams": &params,
	} {
		if err := json.Unmarshal(files[name], into); err != nil {
			return nil, fmt.Errorf("cannot read %s of the JIT configuration: %w", name, err)
		}
	}
	switch {
	case settings.WorkFolder == "":
		return nil, fmt.Errorf("cannot use the JIT configuration: WorkFolder is empty")
	case !strings.EqualFold(settings.UseV2Flow, "true") || settings.ServerURLV2 == "":
		return nil, fmt.Errorf("cannot use the JIT configuration: it is not for the V2 flow")
	case credentials.Scheme != "OAuth":
		return nil, fmt.Errorf("cannot use the JIT configuration: scheme %q is not OAuth", credentials.Scheme)
	}
	key, err := privateKey(params)
	if err != nil {
		return nil, err
	}
	fips := credentials.Data.RequireFipsCryptography
	return &Config{
		RunnerID: settings.AgentID, RunnerName: settings.AgentName, Broker: settings.ServerURLV2,
		ClientID: credentials.Data.ClientID, TokenURL: credentials.Data.AuthorizationURL,
		FIPS: fips == "" || strings.EqualFold(fips, "true"), Key: key,
	}, nil
}

// privateKey builds the key as .NET's ImportParameters does: short parts are refused.
func privateKey(params map[string][]byte) (*rsa.PrivateKey, error) {
	size := len(params["modulus"])
	for part, want := range map[string]int{
		"d": size, "p": size / 2, "q": size / 2, "dp": size / 2, "dq": size / 2, "inverseQ": size / 2,
	} {
		if len(params[part]) != want {
			return nil, fmt.Errorf("cannot use the JIT configuration: RSA part %s has %d bytes instead of %d", part, len(params[part]), want)
		}
	}
	n := func(part string) *big.Int { return new(big.Int).SetBytes(params[part]) }
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n("modulus"), E: int(n("exponent").Int64())},
		D:         n("d"), Primes: []*big.Int{n("p"), n("q")},
	}
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("cannot use the JIT configuration's key: %w", err)
	}
	key.Precompute()
	return key, nil
}

// resolve joins as .NET's Uri does: the last part of a base without a slash is replaced.
func resolve(base, ref string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", fmt.Errorf("cannot parse the base URL %q: %w", base, err)
	}
	u, err := b.Parse(ref)
	if err != nil {
		return "", fmt.Errorf("cannot resolve %q: %w", ref, err)
	}
	return u.String(), nil
}
