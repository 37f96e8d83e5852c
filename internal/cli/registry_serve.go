package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/mirego/tasuki/internal/config"
	"github.com/mirego/tasuki/internal/registry"
)

// serveFlags are what the command line says of a registry; what it says counts
// more than the file.
type serveFlags struct {
	file      string
	conf      config.RegistryServer
	tls       bool
	mirrors   []string
	changed   func(string) bool
	tokenFile string
}

func newRegistryServe(a *app) *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve an OCI registry from a folder",
		Long: "Serve an OCI registry from a folder, until SIGINT or SIGTERM.\n\n" +
			"On a loopback address it speaks plain HTTP and, while there are no users, asks nobody who\n" +
			"they are. On any other it wants a certificate (--tls makes one) and users (tasuki registry\n" +
			"user add), or to be told otherwise. docs/registry.md is the guide.",
		Example: "  tasuki registry serve\n  tasuki registry serve --listen :5000 --tls --mirror ghcr.io",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.changed = cmd.Flags().Changed
			conf, err := a.registryConfig(f)
			if err != nil {
				return err
			}
			return a.serveRegistry(cmd.Context(), conf)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "configuration `file` with a section registry; flags count more")
	flags.StringVar(&f.conf.Listen, "listen", "127.0.0.1:5000", "`address` to listen on; :5000 is every one of this machine's, port 0 takes a free one")
	dirFlag(cmd, &f.conf.Dir)
	flags.BoolVar(&f.tls, "tls", false, "speak TLS with a certificate that is made, kept and renewed here")
	flags.StringArrayVar(&f.conf.TLS.Hosts, "host", nil, "`name` or address that clients use, for --tls, beside this machine's own; repeat it for several")
	flags.StringVar(&f.conf.TLS.Cert, "tls-cert", "", "`file` with a certificate of your own, and its chain, in PEM")
	flags.StringVar(&f.conf.TLS.Key, "tls-key", "", "`file` with its key")
	flags.BoolVar(&f.conf.PlainHTTP, "plain-http", false, "speak plain HTTP beyond this machine: behind a proxy that speaks TLS")
	flags.BoolVar(&f.conf.Open, "open", false, "ask nobody who they are, beyond this machine, while there are no users")
	flags.BoolVar(&f.conf.AnonymousPull, "anonymous-pull", false, "anybody may pull; pushes take a writer")
	flags.StringArrayVar(&f.mirrors, "mirror", nil, "`registry` to pull through this one, as HOST/mirror/REGISTRY/NAME; repeat it for several")
	flags.IntVar(&f.conf.GC.KeepLast, "keep-last", 0, "keep so many images of each repository, those tagged last; 0 keeps all")
	flags.StringArrayVar(&f.conf.GC.KeepTags, "keep-tag", nil, "`pattern` of tags to keep whatever their age; repeat it for several")
	flags.BoolVar(&f.conf.AccessLog, "access-log", false, "log every request, with who asked")
	flags.StringVar(&f.tokenFile, "metrics-token-file", "", "`file` (mode 0600) with the token that /metrics asks callers of other machines for")
	return cmd
}

// registryConfig puts the flags over the file, and the file over the defaults.
func (a *app) registryConfig(f *serveFlags) (config.RegistryServer, error) {
	conf := config.Default().Registry
	conf.Dir = ""
	if f.file != "" {
		cfg, err := config.LoadRegistry(f.file)
		if err != nil {
			return conf, err
		}
		conf = cfg.Registry
		if conf.Dir == "" && !a.homeGiven {
			conf.Dir = filepath.Join(cfg.Host.Home, "registry")
		}
	}
	set := func(name string, apply func()) {
		if f.changed(name) {
			apply()
		}
	}
	set("listen", func() { conf.Listen = f.conf.Listen })
	set("dir", func() { conf.Dir = f.conf.Dir })
	set("tls", func() { conf.TLS.Generate = f.tls })
	set("host", func() { conf.TLS.Hosts = f.conf.TLS.Hosts })
	set("tls-cert", func() { conf.TLS.Cert = f.conf.TLS.Cert })
	set("tls-key", func() { conf.TLS.Key = f.conf.TLS.Key })
	set("plain-http", func() { conf.PlainHTTP = f.conf.PlainHTTP })
	set("open", func() { conf.Open = f.conf.Open })
	set("anonymous-pull", func() { conf.AnonymousPull = f.conf.AnonymousPull })
	set("keep-last", func() { conf.GC.KeepLast = f.conf.GC.KeepLast })
	set("keep-tag", func() { conf.GC.KeepTags = f.conf.GC.KeepTags })
	set("access-log", func() { conf.AccessLog = f.conf.AccessLog })
	set("metrics-token-file", func() { conf.MetricsToken = config.Source{File: f.tokenFile} })
	for _, m := range f.mirrors {
		conf.Mirrors = append(conf.Mirrors, config.Mirror{Upstream: m})
	}
	var err error
	conf.Dir, err = a.registryDir(conf.Dir)
	return conf, err
}

// serveRegistry serves until the context, or the user, ends it.
func (a *app) serveRegistry(ctx context.Context, conf config.RegistryServer) error {
	log, err := a.logger()
	if err != nil {
		return err
	}
	ctx, stop := interruptible(ctx)
	defer stop()
	if err := safeToServe(conf); err != nil {
		return err
	}
	lock, err := registry.Lock(conf.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	opt, err := registryOptions(ctx, conf, log)
	if err != nil {
		return err
	}
	authority, err := a.registryCertificate(conf, &opt)
	if err != nil {
		return err
	}
	l, err := listenTCP(ctx, conf.Listen)
	if err != nil {
		return err
	}
	r, err := registry.New(opt)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	a.greetRegistry(conf, l.Addr().(*net.TCPAddr), authority)
	var side sync.WaitGroup
	orders, stopOrders := context.WithCancel(ctx)
	side.Go(func() {
		if err := r.Admin(orders); err != nil {
			log.Warn("registry takes no orders: tasuki registry gc works only while it is stopped", "err", err)
		}
	})
	err = r.Run(ctx, l)
	stopOrders()
	side.Wait()
	return err
}

// safeToServe refuses what would let the network read or write unasked, unless
// the user said so.
func safeToServe(conf config.RegistryServer) error {
	host, _, err := net.SplitHostPort(conf.Listen)
	if err != nil {
		return withHint(fmt.Errorf("%q is not ADDRESS:PORT", conf.Listen), "write --listen 127.0.0.1:5000, or :5000 for every address")
	}
	if (conf.TLS.Cert == "") != (conf.TLS.Key == "") {
		return withHint(errors.New("only one of --tls-cert and --tls-key is given"), "give both, or --tls to have a certificate made")
	}
	if conf.TLS.Cert != "" && conf.TLS.Generate {
		return withHint(errors.New("there is a certificate, and --tls would make one"), "leave out --tls")
	}
	if ip := net.ParseIP(host); host == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	if conf.TLS.Cert == "" && !conf.TLS.Generate && !conf.PlainHTTP {
		return withHint(fmt.Errorf("cannot serve %s over plain HTTP: passwords and images could be read and changed on their way", conf.Listen),
			"add --tls, or --tls-cert and --tls-key; --plain-http if a proxy in front speaks TLS")
	}
	if _, err := os.Stat(registryUsers(conf.Dir)); err != nil && !conf.Open {
		return withHint(fmt.Errorf("cannot serve %s: there are no users in %s yet, so that anybody could push", conf.Listen, conf.Dir),
			fmt.Sprintf("tasuki registry user add NAME --write --dir %s; or --open to ask nobody", conf.Dir))
	}
	return nil
}

func registryOptions(ctx context.Context, conf config.RegistryServer, log *slog.Logger) (registry.Options, error) {
	opt := registry.Options{
		Dir: conf.Dir, Users: registryUsers(conf.Dir), Open: true, AnonymousPull: conf.AnonymousPull,
		Policy: policyOf(conf.GC), CollectEvery: time.Duration(conf.GC.Every), AccessLog: conf.AccessLog, Log: log,
	}
	var err error
	if opt.MetricsToken, err = conf.MetricsToken.Read(ctx); err != nil {
		return opt, fmt.Errorf("token for metrics: %w", err)
	}
	for _, m := range conf.Mirrors {
		if _, err := m.Password.Read(ctx); err != nil {
			return opt, fmt.Errorf("password of mirror %q: %w", m.Upstream, err)
		}
		mirror := registry.Mirror{Name: m.Name, Upstream: m.Upstream, Username: m.Username, Password: m.Password.Read, Keep: time.Duration(m.Keep)}
		if m.CA != "" {
			if mirror.Roots, err = rootsOf(m.CA); err != nil {
				return opt, fmt.Errorf("authorities of mirror %q: %w", m.Upstream, err)
			}
		}
		opt.Mirrors = append(opt.Mirrors, mirror)
	}
	return opt, nil
}

func policyOf(gc config.GarbageCollection) registry.Policy {
	return registry.Policy{KeepLast: gc.KeepLast, KeepTags: gc.KeepTags, Untagged: time.Duration(gc.Untagged), Grace: time.Duration(gc.Grace)}
}

// registryCertificate loads or makes what the configuration asks for.
func (a *app) registryCertificate(conf config.RegistryServer, opt *registry.Options) (authority *registry.Authority, err error) {
	switch {
	case conf.TLS.Cert != "":
		opt.Certificate, err = registry.LoadCertificate(conf.TLS.Cert, conf.TLS.Key)
	case conf.TLS.Generate:
		names := append(registry.MachineNames(), conf.TLS.Hosts...)
		authority, opt.Certificate, err = registry.OpenAuthority(filepath.Join(conf.Dir, "tls"), names)
	}
	return authority, err
}

// greetRegistry says where the registry is, who may use it, and what clients
// need to trust it.
func (a *app) greetRegistry(conf config.RegistryServer, at *net.TCPAddr, authority *registry.Authority) {
	scheme := "http"
	if conf.TLS.Generate || conf.TLS.Cert != "" {
		scheme = "https"
	}
	host := at.IP.String()
	if at.IP.IsUnspecified() {
		host = "localhost"
		if len(conf.TLS.Hosts) > 0 {
			host = conf.TLS.Hosts[0]
		}
	}
	address := net.JoinHostPort(host, fmt.Sprint(at.Port))
	fmt.Fprintf(a.stderr, "registry of %s on %s://%s\n", conf.Dir, scheme, address)
	if _, err := os.Stat(registryUsers(conf.Dir)); err != nil {
		fmt.Fprintf(a.stderr, "anybody who reaches it may push: there are no users; tasuki registry user add NAME --write --dir %s\n", conf.Dir)
	}
	for _, m := range conf.Mirrors {
		name := m.Name
		if name == "" {
			name = m.Upstream
		}
		fmt.Fprintf(a.stderr, "mirror of %s: pull %s/mirror/%s/NAME:TAG\n", m.Upstream, address, strings.ReplaceAll(name, ":", "-"))
	}
	if authority != nil {
		trustRoot(a.stderr, authority.RootFile(), address)
	}
}

// trustRoot says how clients come to trust a generated authority.
func trustRoot(w io.Writer, root, address string) {
	fmt.Fprintf(w, `clients must trust its root, %s; copy it to them, then:
  a Tasuki host:  registries: [{host: "%s", ca: tasuki-registry.pem}]  in its configuration
  macOS:          sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain tasuki-registry.pem
  Debian, Ubuntu: sudo cp tasuki-registry.pem /usr/local/share/ca-certificates/tasuki-registry.crt && sudo update-ca-certificates
  Fedora, RHEL:   sudo cp tasuki-registry.pem /etc/pki/ca-trust/source/anchors/ && sudo update-ca-trust
`, root, address)
}
