package archtest

import "strings"

// module is our own import path.
const module = "github.com/mirego/tasuki"

// layer is a set of packages with the same rights.
type layer string

// The layers, from the ground up.
const (
	base    layer = "base"    // small things that anyone may import
	words   layer = "words"   // types, ports and pure decisions
	adapter layer = "adapter" // each knows one outside thing, and no other adapter
	double  layer = "double"  // test doubles and conformance suites, for tests alone
	engine  layer = "engine"  // sees only words
	surface layer = "surface" // what people and programs talk to
	root    layer = "root"    // the command line, which wires
	program layer = "program" // a main package
)

// mayImport says which layers a layer may import, beside the standard library.
// Packages of one adapter (a folder and what is below it) may import each
// other; engines may not.
var mayImport = map[layer][]layer{
	base:    {base},
	words:   {base, words},
	adapter: {base, words},
	double:  {base, words, adapter},
	engine:  {base, words},
	surface: {base, words, engine},
	root:    {base, words, adapter, engine, surface, root},
	program: {root},
}

// layers places every package, by its path below internal; the longest prefix
// counts. A new package is placed here in the commit that brings it.
var layers = map[string]layer{
	"base": base,

	"api": words, "event": words, "guest": words, "image": words, "pool": words, "runner": words, "vm": words, "wait": words, "why": words,

	"vm/qemu": adapter, "vm/tart": adapter, "vm/fake": adapter,
	"guest/ssh": adapter, "guest/local": adapter, "guest/tartexec": adapter,
	"image/store": adapter, "image/transfer": adapter, "image/debian": adapter, "image/cloud": adapter,
	"github": adapter, "runnerdist": adapter, "registry": adapter, "dockerlogin": adapter, "emulator": adapter,
	"journal": adapter, "eventlog": adapter, "history": adapter, "doctor": adapter, "service": adapter,

	"vm/vmtest": double, "guest/guesttest": double, "vm/tart/tarttest": double, "doctor/doctortest": double,
	"image/tartfmt/tartfmttest": double, "image/cloud/cloudtest": double, "archtest": double, "e2e": double, "monitoring/boards": double,

	"agent": engine, "recipe": engine, "fleet": engine,
	"client": surface, "config": surface, "console": surface, "daemon": surface, "metrics": surface, "monitoring": surface,
	"cli":  root,
	"demo": root,
}

// exceptions are edges that the layers forbid, each with its reason.
var exceptions = map[string]string{
	"image/transfer → image/store":                                "a pull fills the store's partial in place: 20 GB are not copied twice",
	"emulator/protorunner/cmd/protorunner → emulator/protorunner": "a program of the emulator's own, for tests",
}

// thirdParty says who may import which module of others: one adapter or
// surface each, so that replacing it touches one folder.
var thirdParty = map[string][]string{
	"github.com/actions/scaleset":                  {"github/scaleset"},
	"github.com/coder/websocket":                   {"emulator"},
	"github.com/distribution/distribution/v3":      {"registry"},
	"github.com/goccy/go-yaml":                     {"config"},
	"github.com/golang-jwt/jwt/v5":                 {"emulator", "github"},
	"github.com/google/go-cmp":                     {"vm/vmtest", "guest/guesttest"},
	"github.com/google/go-containerregistry":       {"image/transfer", "registry"},
	"github.com/google/go-github/v82":              {"github"},
	"github.com/grafana/grafana-foundation-sdk/go": {"monitoring/boards"},
	"github.com/pierrec/lz4/v4":                    {"image/tartfmt", "image/debian"},
	"github.com/prometheus/client_golang":          {"metrics", "registry"},
	"github.com/rhysd/actionlint":                  {"emulator/workflow"},
	"github.com/rogpeppe/go-internal":              {"doctor/doctortest"},
	"github.com/sirupsen/logrus":                   {"registry"},
	"github.com/spf13/cobra":                       {"cli"},
	"github.com/spf13/pflag":                       {"cli"},
	"gopkg.in/natefinch/lumberjack.v2":             {"cli"},
	"howett.net/plist":                             {"service"},
	"go.yaml.in/yaml/v4":                           {"emulator"},
	"golang.org/x/crypto":                          {"guest/ssh", "recipe", "registry"},
	"golang.org/x/sync":                            {"image"},
	"golang.org/x/sys":                             {"base", "image", "registry", "vm/qemu"},
	"golang.org/x/term":                            {"cli"},
	"modernc.org/sqlite":                           {"history"},
}

// execUser is the only package that runs programs.
const execUser = "base/proc"

// within says whether path is prefix or lies below it.
func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// layerOf returns the layer of a package below internal, and the prefix that
// placed it; "" if none does.
func layerOf(path string) (layer, string) {
	best := ""
	for prefix := range layers {
		if within(path, prefix) && len(prefix) > len(best) {
			best = prefix
		}
	}
	return layers[best], best
}

// forbidden says why a package may not import another of ours; "" if it may.
func forbidden(from, to string) string {
	if _, ok := exceptions[from+" → "+to]; ok {
		return ""
	}
	fromLayer, fromRoot := layerOf(from)
	toLayer, toRoot := layerOf(to)
	if fromRoot == toRoot && fromLayer != engine {
		return "" // of one house
	}
	for _, l := range mayImport[fromLayer] {
		if l == toLayer {
			return ""
		}
	}
	return string(fromLayer) + " may not import " + string(toLayer)
}
