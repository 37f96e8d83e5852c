package boards

import (
	"fmt"
	"strconv"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/logs"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// shape is how a panel shows its data.
type shape int

const (
	graph    shape = iota // lines over time
	stacked               // areas over time, one on the other
	number                // the last value, large
	timeline              // a bar for each slot, coloured by what it does
	rows                  // a table of labels, as they are now
	lines                 // log lines
)

// panel is one panel. It is a cog.Builder[dashboard.Panel].
type panel struct {
	shape   shape
	title   string
	asks    string // the question that it answers
	unit    string // of Grafana's; empty: none
	width   uint32 // of 24
	height  uint32 // 0: that of its shape
	warn    *float64
	queries []query
	id      uint32 // unique in its dashboard
}

// query is one question, in PromQL or, in panels of lines, in LogQL.
type query struct{ expr, legend string }

// Build implements cog.Builder.
func (p panel) Build() (dashboard.Panel, error) {
	height := p.height
	if height == 0 {
		height = map[shape]uint32{number: 4, rows: 8, lines: 10}[p.shape]
	}
	if height == 0 {
		height = 8
	}
	switch p.shape {
	case number:
		b := stat.NewPanelBuilder().Id(p.id).Title(p.title).Description(p.asks).Unit(p.unit).Span(p.width).Height(height).
			Datasource(from(metricsVar, "prometheus")).Targets(p.targets()).NoValue("–").
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
			Orientation(common.VizOrientationAuto).ColorMode(common.BigValueColorModeValue).GraphMode(common.BigValueGraphModeArea).
			Thresholds(p.thresholds())
		return b.Build()
	case timeline:
		return statetimeline.NewPanelBuilder().Id(p.id).Title(p.title).Description(p.asks).Span(p.width).Height(height).
			Datasource(from(metricsVar, "prometheus")).Targets(p.targets()).Mappings(slotStates()).
			ShowValue(common.VisibilityModeNever).MergeValues(true).RowHeight(0.9).LineWidth(0).FillOpacity(90).
			Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).Placement(common.LegendPlacementBottom).DisplayMode(common.LegendDisplayModeList)).
			Build()
	case rows:
		return table.NewPanelBuilder().Id(p.id).Title(p.title).Description(p.asks).Unit(p.unit).Span(p.width).Height(height).
			Datasource(from(metricsVar, "prometheus")).Targets(p.targets()).NoValue("–").
			WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
				"excludeByName": map[string]bool{"Time": true, "__name__": true, "job": true, "instance": true},
			}}).Build()
	case lines:
		return logs.NewPanelBuilder().Id(p.id).Title(p.title).Description(p.asks).Span(p.width).Height(height).
			Datasource(from(logsVar, "loki")).Targets(p.targets()).
			ShowTime(true).WrapLogMessage(true).EnableLogDetails(true).SortOrder(common.LogsSortOrderDescending).Build()
	}
	b := timeseries.NewPanelBuilder().Id(p.id).Title(p.title).Description(p.asks).Unit(p.unit).Span(p.width).Height(height).
		Datasource(from(metricsVar, "prometheus")).Targets(p.targets()).Min(0).ShowPoints(common.VisibilityModeNever).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).Placement(common.LegendPlacementBottom).DisplayMode(common.LegendDisplayModeList))
	if p.shape == stacked {
		b.Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal)).FillOpacity(60).LineWidth(0)
	}
	return b.Build()
}

func (p panel) targets() []cog.Builder[variants.Dataquery] {
	var out []cog.Builder[variants.Dataquery]
	for i, q := range p.queries {
		id := string(rune('A' + i))
		if p.shape == lines {
			out = append(out, loki.NewDataqueryBuilder().Expr(q.expr).RefId(id).QueryType("range"))
			continue
		}
		b := prometheus.NewDataqueryBuilder().Expr(q.expr).RefId(id).LegendFormat(q.legend)
		if p.shape == rows {
			b.Instant().Format(prometheus.PromQueryFormatTable)
		} else {
			b.Range()
		}
		out = append(out, b)
	}
	return out
}

// thresholds colour a number from warn on.
func (p panel) thresholds() *dashboard.ThresholdsConfigBuilder {
	steps := []dashboard.Threshold{{Color: stateColours["idle"]}}
	if p.warn != nil {
		steps = append(steps, dashboard.Threshold{Value: p.warn, Color: stateColours["leaked"]})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

// stateColours are those of Okabe and Ito, which colour-blind people tell apart.
var stateColours = map[string]string{
	"free": "#999999", "starting": "#56B4E9", "idle": "#009E73", "busy": "#0072B2",
	"held": "#CC79A7", "ending": "#E69F00", "leaked": "#D55E00",
}

// SlotStates are the values of tasuki_slot_state, in their order.
var SlotStates = []string{"free", "starting", "idle", "busy", "held", "ending", "leaked"}

// slotStates gives the numbers of tasuki_slot_state their names and colours.
func slotStates() []dashboard.ValueMapping {
	options := map[string]dashboard.ValueMappingResult{}
	for i, name := range SlotStates {
		options[strconv.Itoa(i)] = dashboard.ValueMappingResult{
			Text: cog.ToPtr(name), Color: cog.ToPtr(stateColours[name]), Index: cog.ToPtr(int32(i)),
		}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}

// The selectors of the variables.
const (
	ofHost = `job="tasuki",host=~"$host"`
	ofPool = ofHost + `,pool=~"$pool"`
)

// percentiles asks for some of a histogram, by its name, over so long.
func percentiles(histogram, over string, ps ...int) (out []query) {
	for _, p := range ps {
		out = append(out, query{
			fmt.Sprintf(`histogram_quantile(%g, sum by (le) (rate(%s_bucket{%s}[%s])))`, float64(p)/100, histogram, ofPool, over),
			fmt.Sprintf("p%d", p),
		})
	}
	return out
}

// ask is a panel's only query.
func ask(legend, format string, args ...any) []query {
	return []query{{fmt.Sprintf(format, args...), legend}}
}
