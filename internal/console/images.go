package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/mirego/tasuki/internal/api"
	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/why"
)

// images is what the page Images shows.
type images struct {
	Pools   []poolImage
	Here    []storedImage
	Total   int64  // bytes that they take on the disk
	Trouble string // why some of them cannot be read
}

// poolImage is the image of one pool.
type poolImage struct {
	api.Pool
	Pull    *pull
	Before  string
	Differs *Difference // from the one before
}

// pull is an image on its way.
type pull struct {
	why.Pull
	Share float64 // from 0 to 1; 0: its size is not known
}

// storedImage is an image on the disk of this host.
type storedImage struct {
	image.Stored
	Refs  []string
	Pools []string // that use it
	Role  string   // "in use", "before", "rejected", "" for one that no pool needs
}

// images gathers what the page Images shows.
func (c *Console) images(ctx context.Context) images {
	var out images
	s, pulls := c.opt.Status(), c.opt.Feed.pulling()
	var stored []image.Stored
	if c.opt.Images != nil {
		var err error
		if stored, err = c.opt.Images(ctx); err != nil {
			out.Trouble = err.Error()
		}
	}
	for _, p := range s.Pools {
		out.Pools = append(out.Pools, c.poolImage(ctx, p, pulls, stored))
	}
	for _, img := range stored {
		out.Total += img.Size
		out.Here = append(out.Here, storedOf(img, s.Pools))
	}
	slices.SortStableFunc(out.Here, func(a, b storedImage) int {
		return cmp.Or(-cmp.Compare(a.rank(), b.rank()), b.LastUsed.Compare(a.LastUsed))
	})
	return out
}

func (c *Console) poolImage(ctx context.Context, p api.Pool, pulls map[string]why.Pull, stored []image.Stored) poolImage {
	row := poolImage{Pool: p}
	if on, there := pulls[p.Name]; there {
		row.Pull = &pull{Pull: on}
		if on.Total > 0 {
			row.Pull.Share = min(1, float64(on.Done)/float64(on.Total))
		}
	}
	here := func(digest string) bool {
		return slices.ContainsFunc(stored, func(img image.Stored) bool { return img.Digest == digest })
	}
	if c.opt.Diff != nil && p.Previous != "" && p.Previous != p.Digest && here(p.Previous) && here(p.Digest) {
		if d, err := c.opt.Diff(ctx, p.Previous, p.Digest); err == nil {
			row.Before, row.Differs = p.Previous, &d
		} else {
			c.log.Debug("images cannot be compared", "from", p.Previous, "to", p.Digest, "err", err)
		}
	}
	return row
}

func storedOf(img image.Stored, pools []api.Pool) storedImage {
	out := storedImage{Stored: img}
	for _, ref := range img.Tags {
		out.Refs = append(out.Refs, ref.String())
	}
	if len(out.Refs) == 0 && !img.Ref.IsZero() {
		out.Refs = []string{img.Ref.String()}
	}
	for _, p := range pools {
		role := ""
		switch img.Digest {
		case p.Digest:
			role = "in use"
		case p.Previous:
			role = "before"
		case p.Rejected:
			role = "rejected"
		default:
			continue
		}
		out.Pools = append(out.Pools, p.Name)
		if out.Role != "in use" {
			out.Role = role
		}
	}
	return out
}

// rank puts what is used first.
func (s storedImage) rank() int {
	return slices.Index([]string{"", "rejected", "before", "in use"}, s.Role)
}

// OS and Arch are what the image's labels say of its guest.
func (s storedImage) OS() string { return cmp.Or(s.Labels[image.LabelOS], "?") }

// Arch is the guest's architecture.
func (s storedImage) Arch() string { return cmp.Or(s.Labels[image.LabelArch], "?") }

// Program is the runner program that the image carries.
func (s storedImage) Program() string {
	return cmp.Or(s.Labels[image.LabelRunnerVersion], s.Labels[image.LabelRunnerKind])
}

func (c *Console) imagesPage(w http.ResponseWriter, r *http.Request) error {
	return c.show(w, r, http.StatusOK, "images", page{Title: "Images", Here: "images", Live: "/live?page=images", Body: c.images(r.Context())})
}

// imagesEvery is how often a stream looks at the disk.
const imagesEvery = 15 * time.Second

// imagesView renders what of Images changes. It looks at the disk now and then,
// and at pulls always.
func (c *Console) imagesView() view {
	var at time.Time
	var seen images
	return func(ctx context.Context) (map[string]string, error) {
		if time.Since(at) >= imagesEvery {
			at, seen = time.Now(), c.images(ctx)
		}
		s, pulls := c.opt.Status(), c.opt.Feed.pulling()
		for i, row := range seen.Pools {
			for _, p := range s.Pools {
				if p.Name == row.Name {
					fresh := c.poolImage(ctx, p, pulls, nil)
					fresh.Before, fresh.Differs = row.Before, row.Differs
					seen.Pools[i] = fresh
				}
			}
		}
		return c.parts([]string{"poolimages", "stored"}, seen)
	}
}
