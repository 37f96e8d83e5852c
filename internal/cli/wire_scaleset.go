package cli

import (
	"cmp"
	"context"
	"log/slog"
	"path/filepath"

	"github.com/mirego/tasuki/internal/agent"
	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/github"
	"github.com/mirego/tasuki/internal/github/scaleset"
)

// scaleSets makes the scale sets of pools, and gives the same again while a
// pool stays where it is: what changes otherwise, its set takes over.
type scaleSets struct {
	home, installation, host string
	log                      *slog.Logger
	services                 map[*github.Client]*scaleset.Service
	sets                     map[string]poolSet // by pool
	// settle makes the last configuration count, once the agent has taken it over.
	settle []func()
}

type poolSet struct {
	service *scaleset.Service
	set     *scaleset.Set
}

func newScaleSets(host config.Host, installation string, log *slog.Logger) *scaleSets {
	return &scaleSets{
		home: host.Home, installation: installation, host: host.Name, log: log,
		services: map[*github.Client]*scaleset.Service{}, sets: map[string]poolSet{},
	}
}

// service returns the Actions service of a scope.
func (s *scaleSets) service(of *github.Client) *scaleset.Service {
	service, ok := s.services[of]
	if !ok {
		service = scaleset.NewService(of)
		s.services[of] = service
	}
	return service
}

// wire gives the pool the scale set that its configuration names.
func (s *scaleSets) wire(p *agent.Pool, of *config.ScaleSet, client *github.Client, slots int) error {
	next := scaleset.Settings{
		Name: of.Name, Group: p.Spec.Group, Labels: p.Spec.PublishedLabels(p.Driver.Capabilities()),
		Capacity: cmp.Or(p.Spec.Most, slots), Warm: of.Warm, Headroom: of.Headroom,
	}
	service, before := s.service(client), s.sets[p.Spec.Name]
	if before.service == service {
		s.settle = append(s.settle, func() { before.set.Configure(next) })
	} else {
		set, err := scaleset.New(scaleset.Options{
			Service: service, Pool: p.Spec.Name, Installation: s.installation, Host: s.host,
			File: filepath.Join(scaleSetsDir(s.home), p.Spec.Name+".json"), After: before.set, Log: s.log,
		}, next)
		if err != nil {
			return err
		}
		before = poolSet{service, set}
		s.settle = append(s.settle, func() { s.sets[p.Spec.Name] = before })
	}
	p.GitHub, p.Demand = before.set, listener{before.set}
	return nil
}

// settled makes the sets take over what wire was told last.
func (s *scaleSets) settled() {
	for _, f := range s.settle {
		f()
	}
	s.settle = nil
}

func scaleSetsDir(home string) string { return filepath.Join(home, "scalesets") }

// listener is a scale set as the agent runs it.
type listener struct{ *scaleset.Set }

// Listen implements agent.Listener.
func (l listener) Listen(ctx context.Context, to agent.Ear) { l.Set.Listen(ctx, scaleset.Ear(to)) }
