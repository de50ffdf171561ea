// Charts: each element says with data attributes what it draws and where the JSON is.
(function () {
  "use strict";

  // The colours of the style sheet, resolved for the theme in use.
  function colour(name) {
    var probe = document.createElement("span");
    probe.style.color = "var(--" + name + ")";
    document.body.appendChild(probe);
    var found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function faded(rgb, alpha) {
    var parts = rgb.match(/[\d.]+/g);
    return "rgba(" + parts.slice(0, 3).join(",") + "," + alpha + ")";
  }

  function theme() {
    var names = ["text", "muted", "line", "panel", "accent", "red", "orange", "green", "raised"];
    var found = {};
    names.forEach(function (name) { found[name] = colour(name); });
    return found;
  }

  // Times in the zone that the page states, whatever the browser's own zone is.
  function timeWriter(zone) {
    var format = new Intl.DateTimeFormat("sv-SE", {
      timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit",
      hour: "2-digit", minute: "2-digit", hourCycle: "h23"
    });
    return function (milliseconds) { return format.format(new Date(milliseconds)); };
  }

  function shortTime(write, spanDays) {
    return function (milliseconds) {
      var text = write(milliseconds);
      return spanDays > 3 ? text.slice(5, 10) : text.slice(5, 10) + "\n" + text.slice(11, 16);
    };
  }

  function percent(fraction, digits) {
    var text = (fraction * 100).toFixed(digits === undefined ? 2 : digits);
    if (fraction > 0) { text = "+" + text; }
    return text.replace("-", "−") + " %";
  }

  function base(element, colours, write, spanDays) {
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colours.text },
      grid: { left: 62, right: 18, top: 34, bottom: 40 },
      legend: { top: 0, right: 10, textStyle: { color: colours.muted }, itemWidth: 16, itemHeight: 8 },
      tooltip: {
        trigger: "axis", renderMode: "richText", backgroundColor: colours.panel,
        borderColor: colours.line, textStyle: { color: colours.text, fontSize: 12 },
        axisPointer: { lineStyle: { color: colours.muted } }
      },
      xAxis: {
        type: "time", axisLine: { lineStyle: { color: colours.line } }, splitLine: { show: false },
        axisLabel: { color: colours.muted, hideOverlap: true, formatter: shortTime(write, spanDays) }
      }
    };
  }

  function axis(name, colours, formatter, extra) {
    return Object.assign({
      type: "value", name: name, nameTextStyle: { color: colours.muted, align: "left" },
      axisLabel: { color: colours.muted, formatter: formatter },
      splitLine: { lineStyle: { color: colours.line } }
    }, extra || {});
  }

  function milliseconds(text) { return Date.parse(text); }

  function historyOption(element, answer, texts, colours) {
    var write = timeWriter(element.dataset.zone);
    var rows = answer.history.filter(function (row) { return row.relative_error !== null; });
    if (!rows.length) { return null; }
    var times = rows.map(function (row) { return milliseconds(row.as_of); });
    var mpe = rows[rows.length - 1].mpe;
    var low = rows.map(function (row, i) { return [times[i], row.relative_error - 2 * row.standard_uncertainty]; });
    var wide = rows.map(function (row, i) { return [times[i], 4 * row.standard_uncertainty]; });
    var centre = rows.map(function (row, i) { return [times[i], row.relative_error]; });
    var first = times[0], last = times[times.length - 1];
    var verified = JSON.parse(element.dataset.verifications || "[]").map(function (row) {
      return { at: milliseconds(row.verified_on + "T00:00:00Z"), row: row };
    }).filter(function (mark) { return mark.at >= first && mark.at <= last; });
    var limit = Math.max.apply(null, rows.map(function (row) {
      return Math.abs(row.relative_error) + 2 * row.standard_uncertainty;
    }).concat([mpe * 1.5]));
    // A whole number of steps on both sides, so that the axis shows round figures.
    var step = [0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1].find(function (size) { return limit * 1.05 / size <= 5; }) || limit;
    limit = Math.ceil(limit * 1.05 / step) * step;
    var option = base(element, colours, write, (last - first) / 86400000);
    option.legend.data = [texts.error, texts.band, texts.mpe];
    option.yAxis = axis("", colours, function (value) { return percent(value, step < 0.005 ? 2 : 1); }, { min: -limit, max: limit, interval: step });
    option.tooltip.formatter = function (parameters) {
      var row = rows[parameters[0].dataIndex];
      return write(milliseconds(row.as_of)) + "\n" + texts.error + " " + percent(row.relative_error) +
        " ± " + (row.standard_uncertainty * 200).toFixed(2) + " %\n" + texts.mpe + " ± " + (row.mpe * 100).toFixed(1) + " %";
    };
    option.series = [
      { type: "line", data: low, stack: "band", stackStrategy: "all", symbol: "none", lineStyle: { opacity: 0 }, silent: true },
      { name: texts.band, type: "line", data: wide, stack: "band", stackStrategy: "all", symbol: "none", lineStyle: { opacity: 0 }, itemStyle: { color: faded(colours.accent, 0.35) }, areaStyle: { color: faded(colours.accent, 0.22) }, silent: true },
      { name: texts.error, type: "line", data: centre, symbol: "circle", symbolSize: rows.length > 60 ? 0 : 5, itemStyle: { color: colours.accent }, lineStyle: { color: colours.accent, width: 2 } },
      {
        name: texts.mpe, type: "line", data: [], symbol: "none", itemStyle: { color: colours.red }, lineStyle: { color: colours.red, type: "dashed" },
        markLine: {
          silent: true, symbol: "none", lineStyle: { color: colours.red, type: "dashed" },
          label: { color: colours.red, formatter: function (line) { return percent(line.value, 1); }, position: "insideEndTop" },
          data: [{ yAxis: mpe }, { yAxis: -mpe }]
        }
      }
    ];
    if (verified.length) {
      option.series[2].markLine = {
        symbol: "none", silent: true, lineStyle: { color: colours.green },
        label: { color: colours.green, formatter: texts.verified },
        data: verified.map(function (mark) { return { xAxis: mark.at }; })
      };
    }
    return option;
  }

  function readingsOption(element, answer, texts, colours) {
    var write = timeWriter(element.dataset.zone);
    if (!answer.at.length) { return null; }
    var times = answer.at.map(milliseconds);
    function points(values, factor) {
      return values.map(function (value, i) { return [times[i], value === null ? null : value * factor]; });
    }
    function known(values) { return values.some(function (value) { return value !== null; }); }
    var option = base(element, colours, write, (times[times.length - 1] - times[0]) / 86400000);
    option.grid.right = 62;
    option.grid.left = 74;
    option.grid.top = 52;
    option.yAxis = [
      axis("kWh", colours, undefined, { scale: true }),
      axis("kW", colours, undefined, { splitLine: { show: false }, nameTextStyle: { color: colours.muted, align: "right" } })
    ];
    option.dataZoom = [{ type: "inside" }];
    option.tooltip.formatter = function (parameters) {
      return write(parameters[0].value[0]) + "\n" + parameters.filter(function (p) { return p.value[1] !== null; }).map(function (p) {
        return p.seriesName + " " + p.value[1].toFixed(3);
      }).join("\n");
    };
    option.series = [{ name: texts.energy, type: "line", step: false, data: points(answer.energy_wh, 0.001), symbol: "none", itemStyle: { color: colours.accent }, lineStyle: { color: colours.accent, width: 2 }, sampling: "lttb" }];
    if (known(answer.power_w)) {
      option.series.push({ name: texts.power, type: "line", yAxisIndex: 1, data: points(answer.power_w, 0.001), symbol: "none", itemStyle: { color: colours.orange }, lineStyle: { color: colours.orange, width: 1 }, sampling: "lttb" });
    }
    return option;
  }

  function balanceOption(element, rows, texts, colours) {
    var write = timeWriter(element.dataset.zone);
    if (!rows.length) { return null; }
    var times = rows.map(function (row) { return milliseconds(row.at); });
    var option = base(element, colours, write, (times[times.length - 1] - times[0]) / 86400000);
    option.yAxis = axis("kWh", colours);
    option.grid.top = 46;
    option.tooltip.formatter = function (parameters) {
      return write(parameters[0].value[0]) + "\n" + parameters.map(function (p) {
        return p.seriesName + " " + p.value[1].toFixed(2) + " kWh";
      }).join("\n");
    };
    function line(name, values, colour_, type) {
      return { name: name, type: "line", step: "end", symbol: "none", data: values, itemStyle: { color: colour_ }, lineStyle: { color: colour_, width: 1.6, type: type || "solid" } };
    }
    option.series = [
      line(texts.reference, rows.map(function (row, i) { return [times[i], row.reference_wh / 1000]; }), colours.text),
      line(texts.piles, rows.map(function (row, i) { return [times[i], row.piles_wh / 1000]; }), colours.accent),
      line(texts.residual, rows.map(function (row, i) { return [times[i], (row.reference_wh - row.piles_wh) / 1000]; }), colours.orange, "dashed")
    ];
    return option;
  }

  function districtsOption(element, outlines, texts, colours) {
    var rows = JSON.parse(element.dataset.values);
    var byCode = {};
    rows.forEach(function (row) { byCode[row.code] = row; });
    echarts.registerMap("districts", outlines);
    var most = Math.max.apply(null, rows.map(function (row) { return row.tiers.red || 0; }).concat([1]));
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colours.text },
      tooltip: {
        renderMode: "richText", backgroundColor: colours.panel, borderColor: colours.line,
        textStyle: { color: colours.text, fontSize: 12 },
        formatter: function (p) {
          var row = p.data && p.data.row;
          return p.name + (row ? "\n" + texts.red + " " + (row.tiers.red || 0) + "\n" + texts.connectors + " " + row.connectors : "");
        }
      },
      visualMap: {
        min: 0, max: most, text: [String(most) + " " + texts.red, "0"], calculable: false, left: 0, bottom: 0,
        itemWidth: 10, itemHeight: 80, textStyle: { color: colours.muted },
        inRange: { color: [colours.raised, faded(colours.red, 0.9)] }
      },
      series: [{
        type: "map", map: "districts", roam: false, aspectScale: 0.78, top: 8, bottom: 8,
        label: { show: false }, itemStyle: { areaColor: colours.raised, borderColor: colours.muted, borderWidth: 0.6 },
        emphasis: { label: { color: colours.text }, itemStyle: { areaColor: faded(colours.accent, 0.5) } },
        select: { disabled: true },
        data: outlines.features.filter(function (part) { return byCode[part.id]; }).map(function (part) {
          var row = byCode[part.id];
          return { name: part.properties.name, value: row.tiers.red || 0, row: row };
        })
      }]
    };
  }

  var OPTIONS = { history: historyOption, readings: readingsOption, balance: balanceOption, districts: districtsOption };
  var drawn = [];

  function note(element, text) {
    element.classList.remove("chart");
    element.classList.add("chart-note");
    element.textContent = text;
  }

  function draw(entry) {
    var option = OPTIONS[entry.element.dataset.chart](entry.element, entry.answer, entry.texts, theme());
    if (!option) { note(entry.element, entry.texts.empty); return; }
    if (!entry.chart) { entry.chart = echarts.init(entry.element, null, { renderer: "canvas" }); }
    entry.chart.setOption(option, true);
    entry.element.dataset.drawn = "true";
  }

  function start(element) {
    var entry = { element: element, texts: JSON.parse(element.dataset.texts), answer: null, chart: null };
    function ready(answer) { entry.answer = answer; drawn.push(entry); draw(entry); }
    if (!element.dataset.source) { ready(JSON.parse(element.dataset.values)); return; }
    fetch(element.dataset.source, { headers: { accept: "application/json" } }).then(function (response) {
      if (!response.ok) { throw new Error(String(response.status)); }
      return response.json();
    }).then(ready).catch(function (error) { note(element, entry.texts.failed + " (" + error.message + ")"); });
  }

  document.querySelectorAll("[data-chart]").forEach(start);
  window.addEventListener("resize", function () {
    drawn.forEach(function (entry) { if (entry.chart) { entry.chart.resize(); } });
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", function () { drawn.forEach(draw); });
})();
