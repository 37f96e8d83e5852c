package config

import (
	"maps"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/pool"
	"github.com/mirego/tasuki/internal/runner"
	"github.com/mirego/tasuki/internal/vm"
)

// Specs returns the pools in the words of the agent.
func (c *Config) Specs() []pool.Spec {
	out := make([]pool.Spec, 0, len(c.Pools))
	for _, p := range c.Pools {
		out = append(out, p.spec())
	}
	return out
}

func (p Pool) spec() pool.Spec {
	s := pool.Spec{
		Name: p.Name, Image: p.Image, Driver: p.Driver, Scope: p.Scope, Group: p.Group, Labels: p.Labels,
		Registration: p.Registration, Runner: p.Runner,
		CPUs: p.CPUs, MemoryMiB: p.Memory.MiB(), DiskGB: p.Disk.GB(),
		Network: vm.Network{Mode: p.Network.Mode, Allow: p.Network.Allow, Block: p.Network.Block},
		Standby: p.Standby, Most: p.Max,
		MaxJob: time.Duration(p.MaxJobTime), HoldAfterFailure: time.Duration(p.HoldAfterFailure),
		Env:       maps.Clone(p.Env),
		BeforeJob: string(p.Hooks.BeforeJob.Bytes()), AfterJob: string(p.Hooks.AfterJob.Bytes()),
		WorkFolder: p.WorkFolder,
	}
	if p.ScaleSet != nil {
		s.ScaleSet = p.ScaleSet.Name
	}
	if p.Driver == "tart" {
		s.Machine = p.Tart.machine()
	}
	for _, f := range p.Network.Forwards {
		s.Network.Forwards = append(s.Network.Forwards, vm.Forward{Guest: f.Guest, Host: f.Host})
	}
	for _, f := range p.Files {
		s.Files = append(s.Files, pool.File{Path: f.Path, Content: f.Bytes(), Mode: uint32(f.Mode)})
	}
	if len(p.Deadlines) > 0 {
		s.Deadlines = map[runner.State]time.Duration{}
		for state, d := range p.Deadlines {
			s.Deadlines[state] = time.Duration(d)
		}
	}
	return s
}

// Warnings are values that work and may hurt, each at its place, as a person
// should hear of them once.
func (c *Config) Warnings() Problems { return slices.Clone(c.warnings).Sorted() }

// File returns the path that the configuration was read from.
func (c *Config) File() string { return c.file }
