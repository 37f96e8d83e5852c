package registry

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestMain lets this binary stand for a registry that is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("TASUKI_TEST_REGISTRY"); dir != "" {
		os.Exit(victim(dir))
	}
	os.Exit(m.Run())
}

// victim serves, and collects garbage without a pause.
func victim(dir string) int {
	s, err := New(Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(l.Addr())
	go func() {
		for {
			_, _ = s.Collect(context.Background(), Policy{KeepLast: 2, KeepTags: []string{"keep"}}, false)
			time.Sleep(2 * time.Millisecond) // lets pushes in
		}
	}()
	fmt.Fprintln(os.Stderr, s.Run(context.Background(), l))
	return 1
}

// A registry that is killed while it takes pushes and deletes garbage, without
// any grace for either, never serves a tag without all of its image.
func TestKillWhilePushingAndCollecting(t *testing.T) {
	dir := t.TempDir()
	seed := newBench(t, Options{Dir: dir})
	seed.push("x", "keep", "kept")
	pushed := 0
	for round := range 5 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "TASUKI_TEST_REGISTRY="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(time.Duration(100+70*round)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		for pushUntilItFails(t, "http://"+strings.TrimSpace(address), fmt.Sprintf("r%d-%d", round, pushed)) {
			pushed++
		}
		timer.Stop()
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed: its error says so

		after := newBench(t, Options{Dir: dir})
		if !after.has("x", "keep", "kept") {
			t.Fatalf("round %d: the image to keep is gone", round)
		}
		checkTags(t, after)
	}
	t.Logf("%d images were pushed", pushed)
}

// pushUntilItFails pushes one image, as far as it gets.
func pushUntilItFails(t *testing.T, url, tag string) bool {
	t.Helper()
	send := func(method, url, contentType, body string) (*http.Response, bool) {
		req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, false // killed
		}
		_ = resp.Body.Close()
		return resp, true
	}
	content := "content of " + tag
	for _, blob := range []string{content, "{}"} {
		resp, ok := send(http.MethodPost, url+"/v2/x/blobs/uploads/", "", "")
		if !ok {
			return false
		}
		if resp.StatusCode != http.StatusAccepted {
			continue // a collection was in between: the manifest will be refused
		}
		if _, ok = send(http.MethodPut, resp.Header.Get("Location")+"&digest="+digestOf([]byte(blob)), "application/octet-stream", blob); !ok {
			return false
		}
	}
	m := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":%q},"layers":[{"mediaType":"application/octet-stream","size":%d,"digest":%q}]}`,
		manifestType, digestOf([]byte("{}")), len(content), digestOf([]byte(content)))
	_, ok := send(http.MethodPut, url+"/v2/x/manifests/"+tag, manifestType, m)
	return ok
}

// checkTags pulls every tag that the registry lists.
func checkTags(t *testing.T, b *bench) {
	t.Helper()
	tags, err := readDir(b.depot.root("repositories", "x", "_manifests", "tags"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range tags {
		if tag.Name() != "keep" {
			b.has("x", tag.Name(), "content of "+tag.Name()) // whole, or not there
		}
	}
}
