// Package boards builds the Grafana dashboards from Go, with Grafana's own types,
// so that their schema is right where Grafana itself cannot be asked.
//
// A board is one dashboard; its rows have panels, and each panel asks Prometheus
// or Loki one or more queries. What is built here is a file in ../dashboards,
// which the program carries: a test builds it anew and compares. This package is
// in no binary.
package boards

import (
	"encoding/json"
	"fmt"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// board is one dashboard.
type board struct {
	uid, title, about string
	oneHost           bool // its host is one, not any number
	rows              []row
}

type row struct {
	title  string
	panels []panel
}

// Build returns every dashboard as JSON, by its file's name.
func Build() (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, b := range []board{fleet(), host(), images()} {
		d, err := b.build()
		if err != nil {
			return nil, fmt.Errorf("cannot build dashboard %q: %w", b.title, err)
		}
		text, err := json.MarshalIndent(d, "", "  ")
		if err != nil {
			return nil, fmt.Errorf("cannot write dashboard %q: %w", b.title, err)
		}
		out[b.uid+".json"] = append(text, '\n')
	}
	return out, nil
}

// The variables that every dashboard has: where to ask, and for what.
const (
	metricsVar = "metrics"
	logsVar    = "logs"
	hostVar    = "host"
	poolVar    = "pool"
)

func (b board) build() (dashboard.Dashboard, error) {
	d := dashboard.NewDashboardBuilder(b.title).
		Uid(b.uid).Description(b.about).Tags([]string{"tasuki"}).
		Timezone(common.TimeZoneBrowser).Time("now-6h", "now").Refresh("30s").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).Editable().
		Link(dashboard.NewDashboardLinkBuilder("Tasuki").Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{"tasuki"}).IncludeVars(true).KeepTime(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder(metricsVar).Label("Metrics").Type("prometheus")).
		WithVariable(dashboard.NewDatasourceVariableBuilder(logsVar).Label("Logs").Type("loki")).
		WithVariable(choice(hostVar, "Host", "label_values(tasuki_build_info{job=\"tasuki\"}, host)", !b.oneHost)).
		WithVariable(choice(poolVar, "Pool", "label_values(tasuki_pool_wanted_runners{job=\"tasuki\",host=~\"$host\"}, pool)", true))
	id := uint32(0)
	for _, r := range b.rows {
		id++
		d.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, p := range r.panels {
			id++
			p.id = id
			d.WithPanel(p)
		}
	}
	return d.Build()
}

// choice is a variable whose values Prometheus knows; many may be chosen at once
// where that is said, and then all of them are.
func choice(name, label, query string, many bool) *dashboard.QueryVariableBuilder {
	v := dashboard.NewQueryVariableBuilder(name).Label(label).Datasource(from(metricsVar, "prometheus")).
		Query(dashboard.StringOrMap{String: cog.ToPtr(query)}).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortAlphabeticalAsc)
	if many {
		all := dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}}
		text := dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}}
		v.Multi(true).IncludeAll(true).AllValue(".*").Current(dashboard.VariableOption{Text: text, Value: all})
	}
	return v
}

// from is the data source that a variable names.
func from(variable, plugin string) common.DataSourceRef {
	return common.DataSourceRef{Type: cog.ToPtr(plugin), Uid: cog.ToPtr("${" + variable + "}")}
}
