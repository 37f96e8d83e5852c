package cli

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"github.com/mirego/tasuki/internal/image"
	"github.com/mirego/tasuki/internal/image/transfer"
)

// bringImage takes the guest image the way that every image goes: built of a
// recipe, pushed to the registry, pulled by digest. What is there already is not done again.
func (d *demo) bringImage(ctx, serve context.Context) error {
	src, err := d.buildImage(ctx)
	if err != nil {
		return err
	}
	if err := d.serveRegistry(serve); err != nil {
		return err
	}
	ref, err := image.Parse(d.registry + "/tasuki/demo:" + recipeTag(src))
	if err != nil {
		return err
	}
	digest, err := d.pushImage(ctx, src, ref)
	if err != nil {
		return err
	}
	return d.pullImage(ctx, ref.WithDigest(digest))
}

// recipeTag names an image after what it was built from.
func recipeTag(src image.Source) string {
	_, key, _ := strings.Cut(src.Labels[image.LabelRecipe], "sha256:")
	if key == "" {
		return image.DefaultTag
	}
	return key[:min(len(key), 16)]
}

// pushImage uploads the image unless the registry has it, and returns its digest.
func (d *demo) pushImage(ctx context.Context, src image.Source, ref image.Ref) (string, error) {
	task := d.view.Task("push", "asks the registry for the image")
	digest, err := transfer.Resolve(ctx, ref, transfer.Options{Log: d.log})
	if err == nil {
		task.Done("the registry has the image, %s", short(digest))
		return digest, nil
	}
	if !errors.Is(err, image.ErrNotInRegistry) {
		task.Fail()
		return "", err
	}
	task.Doing("pushes the image to the registry")
	digest, err = transfer.Push(ctx, src, ref, transfer.Options{Log: d.log, Progress: func(p transfer.Progress) { task.Progress(p.Done, p.Total) }})
	if err != nil {
		task.Fail()
		return "", err
	}
	task.Done("the image is in the registry, %s", short(digest))
	return digest, nil
}

// pullImage brings the image to this host's store by its digest, and drops
// those of other recipes.
func (d *demo) pullImage(ctx context.Context, ref image.Ref) (err error) {
	task := d.view.Task("pull", "brings the image to this host")
	if d.host.tart != nil {
		if d.image, err = d.host.tart.Image(ctx, ref.String(), func(p image.Progress) { task.Progress(p.Done, p.Total) }); err != nil {
			task.Fail()
			return err
		}
		task.Done("the image is in tart's cache, by its digest")
		return nil
	}
	if d.image, err = d.host.images.Image(ctx, ref.String(), func(p image.Progress) { task.Progress(p.Done, p.Total) }); err != nil {
		task.Fail()
		return err
	}
	d.image.Ref = ref
	task.Done("the image is on this host, by its digest")
	all, err := d.host.images.store.List()
	if err != nil {
		return err
	}
	for _, img := range all {
		if img.Digest == d.image.Digest {
			continue
		}
		if err := d.host.images.store.Remove(img.Digest); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("image of an earlier recipe not removed", "digest", img.Digest, "err", err)
		}
	}
	return nil
}

// short is a digest as people compare it.
func short(digest string) string {
	hex := image.DigestHex(digest)
	return "sha256:" + hex[:min(len(hex), 12)]
}
