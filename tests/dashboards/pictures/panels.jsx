// SPDX-License-Identifier: Apache-2.0
// Draws the board and the answers in window.PICTURE with the components that Grafana's own panels are made of.
//
// Time series, stat and table are Grafana's components whole. Grafana publishes no heatmap and no state timeline: those
// two are drawn here, in its colours and on its plot and axes.
import React from 'react';
import {createRoot} from 'react-dom/client';
import {
  FieldConfigOptionsRegistry, FieldType, VizOrientation, applyFieldOverrides, createTheme, dateTime,
  getFieldDisplayName, getValueFormat, formattedValueToString, toDataFrame,
} from '@grafana/data';
import {
  BigValue, BigValueColorMode, BigValueGraphMode, PanelChrome, ThemeContext, TimeSeries, UPlotChart,
  UPlotConfigBuilder, VizRepeater,
} from '@grafana/ui';
import {TableNG} from '@grafana/ui/unstable';
import {AxisPlacement, ScaleDistribution, ScaleDirection, ScaleOrientation} from '@grafana/schema';
import {interpolateTurbo} from 'd3-scale-chromatic';

const {board, answers, from, to} = window.PICTURE;
const theme = createTheme({colors: {mode: 'dark'}});
const range = {from: dateTime(from), to: dateTime(to), raw: {from: dateTime(from), to: dateTime(to)}};
const COLUMN = 60, LINE = 38, GAP = 8;

const option = (prefix, isCustom) => (id) => ({
  id: prefix + id, path: id, name: id, isCustom, process: (value) => value, shouldApply: () => true,
});
const registry = new FieldConfigOptionsRegistry(() => [
  ...['unit', 'decimals', 'min', 'max', 'thresholds', 'color', 'noValue', 'displayName', 'links', 'mappings'].map(option('', false)),
  ...['stacking', 'fillOpacity', 'lineWidth', 'lineStyle', 'cellOptions', 'scaleDistribution', 'thresholdsStyle',
    'showPoints', 'axisSoftMin', 'axisSoftMax', 'align', 'width', 'minWidth'].map(option('custom.', true)),
]);

const configured = (panel, frames) => applyFieldOverrides({
  data: frames, fieldConfig: panel.fieldConfig, replaceVariables: (text) => text, theme,
  fieldConfigRegistry: registry, timeZone: 'utc',
});

const named = (target, labels) => {
  const format = target.legendFormat;
  return format && format !== '__auto' ? format.replace(/\{\{(\w+)\}\}/g, (_, key) => labels[key] ?? '') : Object.values(labels).join(' ');
};

const answered = (panel) => panel.targets.flatMap((target) =>
  (answers[`${panel.id} ${target.refId}`] ?? []).map((series) => ({target, ...series})));

function series(panel) {
  const frames = answered(panel).filter((one) => one.values).map(({target, metric, values}) => toDataFrame({
    refId: target.refId,
    name: named(target, metric),
    fields: [
      {name: 'Time', type: FieldType.time, values: values.map(([time]) => time * 1000)},
      {name: 'Value', type: FieldType.number, labels: metric, config: {displayNameFromDS: named(target, metric)},
        values: values.map(([, value]) => (value === 'NaN' ? null : Number(value)))},
    ],
  }));
  return configured(panel, frames);
}

function Lines({panel, width, height}) {
  const frames = series(panel);
  return <TimeSeries frames={frames} timeRange={range} timeZone="utc" width={width} height={height}
    legend={panel.options.legend} structureRev={1} options={{}} tweakScale={(x) => x} tweakAxis={(x) => x} />;
}

function Numbers({panel, width, height}) {
  const values = series(panel).map((frame, _, frames) => {
    const [time, value] = frame.fields;
    const shown = value.display(value.values[value.values.length - 1]);
    return {shown: {...shown, title: frames.length > 1 ? getFieldDisplayName(value, frame, frames) : undefined}, sparkline: {x: time, y: value}};
  });
  return <VizRepeater getValues={() => values} source={values} renderCounter={0} width={width} height={height}
    orientation={VizOrientation.Auto} renderValue={({value, width: w, height: h}) =>
      <BigValue value={value.shown} sparkline={value.sparkline} width={w} height={h} theme={theme}
        colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.Area} />} />;
}

function Rows({panel, width, height}) {
  const {renameByName, indexByName} = panel.transformations[1].options;
  const rows = new Map();
  for (const {target, metric, value} of answered(panel)) {
    const key = JSON.stringify(Object.entries(metric).sort());
    const name = panel.targets.length === 1 ? 'Value' : `Value #${target.refId}`;
    rows.set(key, {...metric, ...rows.get(key), [name]: Number(value[1])});
  }
  const all = [...rows.values()];
  const order = Object.keys(indexByName).sort((a, b) => indexByName[a] - indexByName[b]);
  const columns = order.filter((name) => name.startsWith('Value') || all.some((row) => name in row));
  const frame = toDataFrame({fields: columns.map((name) => ({
    name: renameByName[name] ?? name,
    type: name.startsWith('Value') ? FieldType.number : FieldType.string,
    values: all.map((row) => row[name] ?? null),
  }))});
  return <TableNG data={configured(panel, [frame])[0]} width={width} height={height} timeRange={range} structureRev={1} />;
}

// A plot of Grafana's without a line of its own: `draw` fills it.
function Canvas({width, height, times, y, axis, draw}) {
  const config = new UPlotConfigBuilder('utc');
  config.addScale({scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right, range: () => [from, to]});
  config.addScale({scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, ...y});
  config.addAxis({scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone: 'utc', theme});
  config.addAxis({scaleKey: 'y', placement: AxisPlacement.Left, theme, grid: {show: false}, ...axis});
  config.addSeries({scaleKey: 'y', theme, lineColor: 'transparent', show: true, pxAlign: 0});
  config.addHook('draw', draw);
  return <UPlotChart config={config} data={[times, times.map(() => null)]} width={width} height={height} />;
}

// Cells of one moment: [lower bound, upper bound, messages a second], seconds.
function cells(panel) {
  const found = new Map();
  const native = answered(panel).filter((one) => one.histograms);
  for (const {histograms} of native)
    for (const [time, {buckets}] of histograms)
      found.set(time * 1000, (buckets ?? []).map(([, low, high, count]) => [Number(low), Number(high), Number(count)]));
  const classic = answered(panel).filter((one) => one.values && 'le' in one.metric).sort((a, b) => a.metric.le.replace('+', '') - b.metric.le.replace('+', ''));
  classic.forEach(({metric, values}, at) => {
    const below = new Map(at ? classic[at - 1].values : []);
    const low = at ? Number(classic[at - 1].metric.le) : Number(metric.le) / 4;
    for (const [time, value] of values) {
      const count = Number(value) - Number(below.get(time) ?? 0);
      found.set(time * 1000, [...(found.get(time * 1000) ?? []), [low, metric.le === '+Inf' ? low * 4 : Number(metric.le), count]]);
    }
  });
  return found;
}

function Heat({panel, width, height}) {
  const found = cells(panel);
  const times = [...found.keys()].sort((a, b) => a - b);
  const shown = [...found.values()].flat().filter(([, , count]) => count > 1e-9);
  const most = Math.max(...shown.map(([, , count]) => count));
  const magnitudes = shown.flatMap(([low, high]) => [Math.abs(low), Math.abs(high)]).filter((value) => value > 0);
  // Zero and what is below it cannot be on a logarithmic axis: it begins a little below the smallest bound.
  const [least, top] = [Math.min(...magnitudes), Math.max(...magnitudes)];
  const below = shown.some(([low]) => low < 0);
  const floor = below ? -top : least / 2;
  const format = getValueFormat(panel.fieldConfig.defaults.unit);
  const step = times.length > 1 ? times[1] - times[0] : 1000;
  const draw = (u) => {
    const {ctx} = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    for (const [time, column] of found)
      for (const [low, high, count] of column) {
        if (count <= 1e-9) continue;
        const x = u.valToPos(time - step, 'x', true), right = u.valToPos(time, 'x', true);
        const place = (value) => u.valToPos(below ? value : Math.max(value, floor), 'y', true);
        const bottom = place(low), y = place(high);
        ctx.fillStyle = interpolateTurbo(Math.ceil(64 * Math.sqrt(count / most)) / 64);
        ctx.fillRect(x, Math.min(y, bottom - 2), Math.max(right - x, 1), Math.max(bottom - y, 2));
      }
    ctx.restore();
  };
  const y = below
    ? {distribution: ScaleDistribution.Linear, range: () => [-top, top]}
    : {distribution: ScaleDistribution.Log, log: 2, range: () => [floor, top * 1.1]};
  const value = (seconds) => (seconds == null ? '' : formattedValueToString(format(seconds, 1)));
  return <Canvas width={width} height={height} times={times} y={y} draw={draw} axis={{
    values: (_u, splits) => splits.map(value), size: 76, splits: (u, _axis, low, high) => below ? [low, low / 2, 0, high / 2, high] : powers(low, high),
  }} />;
}

// Few powers of two between two bounds.
function powers(low, high) {
  const first = Math.ceil(Math.log2(low)), last = Math.floor(Math.log2(high));
  const by = Math.max(1, Math.round((last - first) / 5));
  return Array.from({length: Math.floor((last - first) / by) + 1}, (_, at) => 2 ** (first + at * by));
}

function States({panel, width, height}) {
  const frames = series(panel);
  const times = frames[0].fields[0].values;
  const step = times.length > 1 ? times[1] - times[0] : 1000;
  const draw = (u) => {
    const high = u.bbox.height / frames.length;
    frames.forEach((frame, row) => frame.fields[1].values.forEach((value, at) => {
      if (value === null) return;
      u.ctx.fillStyle = frame.fields[1].display(value).color;
      const x = u.valToPos(frame.fields[0].values[at], 'x', true);
      const right = u.valToPos(frame.fields[0].values[at] + step, 'x', true);
      u.ctx.fillRect(x, u.bbox.top + (row + 0.05) * high, right - x + 0.5, 0.9 * high);
    }));
  };
  const names = frames.map((frame) => getFieldDisplayName(frame.fields[1], frame, frames));
  const places = names.map((_, row) => 1 - (row + 0.5) / names.length);
  return <Canvas width={width} height={height} times={times} draw={draw}
    y={{distribution: ScaleDistribution.Linear, range: () => [0, 1]}}
    axis={{splits: () => places, values: () => names, size: 16 + 7 * Math.max(...names.map(({length}) => length))}} />;
}

const KINDS = {timeseries: Lines, stat: Numbers, table: Rows, heatmap: Heat, 'state-timeline': States};

function Panel({panel, width, height}) {
  const Kind = KINDS[panel.type];
  if (answered(panel).length) return <Kind panel={panel} width={width} height={height} />;
  return <div style={{display: 'flex', alignItems: 'center', justifyContent: 'center', textAlign: 'center', height,
    padding: 12, fontSize: 14, color: theme.colors.text.secondary}}>{panel.fieldConfig.defaults.noValue}</div>;
}

class Guard extends React.Component {
  state = {};
  static getDerivedStateFromError(error) { return {error}; }
  render() {
    return this.state.error ? <pre id="failed" style={{color: 'red'}}>{String(this.state.error.stack)}</pre> : this.props.children;
  }
}

function Board() {
  const high = Math.max(...board.panels.map(({gridPos}) => gridPos.y + gridPos.h));
  return <ThemeContext.Provider value={theme}>
    <div style={{position: 'relative', width: 24 * COLUMN, height: high * LINE, background: theme.colors.background.canvas,
      color: theme.colors.text.primary, fontFamily: theme.typography.fontFamily, fontSize: 14}}>
      {board.panels.map((panel) => {
        const {x, y, w, h} = panel.gridPos;
        const width = w * COLUMN - GAP, height = h * LINE - GAP;
        return <div key={panel.id} style={{position: 'absolute', left: x * COLUMN, top: y * LINE, width, height}}>
          {panel.type === 'row' ? <div style={{padding: 8, fontWeight: 500, fontSize: 16}}>▾ {panel.title}</div>
            : <PanelChrome title={panel.title} width={width} height={height}>
              {(inner, innerHeight) => <Guard><Panel panel={panel} width={inner} height={innerHeight} /></Guard>}
            </PanelChrome>}
        </div>;
      })}
    </div>
  </ThemeContext.Provider>;
}

createRoot(document.getElementById('root')).render(<Board />);
