package config

import (
	"fmt"
	"time"
)

// Images is how the host keeps guest images.
type Images struct {
	Refresh  Duration `yaml:"refresh" doc:"How often each pool's registry is asked what its image is now; each time half of it to one and a half, so that hosts do not ask together."`
	KeepFree Size     `yaml:"keep_free,omitempty" doc:"How much of the disk stays free. Images that nothing needs are removed for it, the least recently used first, and a newer image is not brought where it would not hold. 0GiB: a twentieth of the disk, 20GB at most." example:"50GB"`
	Limit    Size     `yaml:"limit,omitempty" doc:"How many bytes per second pulls may take, all together (not with driver tart). 0GiB: as many as there are." example:"100MB"`
	// Tart is one of TartPull and TartOwn.
	Tart string `yaml:"tart" doc:"How images come into tart's cache. pull: by tart pull. own: by Tasuki's own transfer, which puts them where tart would, under tart's locks; that was never tried on a Mac." enum:"pull,own"`
}

// The values of images.tart.
const (
	TartPull = "pull"
	TartOwn  = "own"
)

// images checks how images are kept.
func (k *checker) images() {
	k.oneOf(at("images.tart"), "way into tart's cache", k.c.Images.Tart, TartPull, TartOwn)
	if r := k.c.Images.Refresh; r < Duration(time.Second) || r > Duration(7*24*time.Hour) {
		k.bad(at("images.refresh"), fmt.Sprintf("refresh of %s", r), "choose one between 1s and 7d; 1m is the default")
	}
}
