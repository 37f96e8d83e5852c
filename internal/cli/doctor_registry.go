package cli

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/doctor"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/image"
)

// registryFindings asks each registry that pools pull from whether it is there.
func (a *app) registryFindings(ctx context.Context, cfg *config.Config) []doctor.Finding {
	var out []doctor.Finding
	asked := map[string]bool{}
	for _, s := range cfg.Specs() {
		ref, err := image.Parse(s.Image)
		if err != nil || s.Driver == "fake" || asked[ref.Registry()] {
			continue
		}
		asked[ref.Registry()] = true
		f := doctor.Finding{Check: "registry", Level: doctor.Well, Seen: ref.Registry() + " answers"}
		if err := pingRegistry(ctx, cfg, ref); err != nil {
			f = doctor.Finding{Check: "registry", Level: doctor.Problem, Seen: err.Error(),
				Why:  "no newer image can be pulled; guests go on from those that are here",
				Mend: "look whether it runs and can be reached; registries: in the configuration names its authority (ca), or http: true"}
		}
		out = append(out, f)
	}
	return out
}

// pingRegistry asks for the root of the registry's API: any answer of a
// registry will do, one that asks for a login too.
func pingRegistry(ctx context.Context, cfg *config.Config, ref image.Ref) error {
	host := ref.Registry()
	scheme, network := "https", github.Network{}
	if ref.Loopback() {
		scheme = "http"
	}
	for _, r := range cfg.Registries {
		if r.Host != host {
			continue
		}
		if r.HTTP {
			scheme = "http"
		}
		if r.CA != "" {
			ca, err := os.ReadFile(r.CA)
			if err != nil {
				return fmt.Errorf("cannot read the authorities of registry %s: %w", host, err)
			}
			network.CA, scheme = ca, "https"
		}
	}
	transport, err := github.NewHTTP(network)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+host+"/v2/", nil)
	if err != nil {
		return fmt.Errorf("cannot ask registry %s: %w", host, err)
	}
	res, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("cannot reach registry %s: %w", host, err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("%s://%s/v2/ answers %s: that is no registry", scheme, host, res.Status)
	}
	return nil
}
