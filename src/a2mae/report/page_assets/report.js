"use strict";
// Draws the charts of the page shown, in the colours of its light or dark theme.
(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const series = {
    light: ["#0b5cad", "#b34700", "#00785a", "#a3327f", "#5c6370", "#8a6100", "#6b3fc9", "#b3261e"],
    dark: ["#7db7f5", "#ffab70", "#4fd1a8", "#f29ad1", "#b8c0cc", "#e6c34d", "#b79cff", "#ff8f87"],
  };

  const themed = (layout) => {
    const style = getComputedStyle(root);
    const ink = style.getPropertyValue("--ink").trim();
    const line = style.getPropertyValue("--line").trim();
    const result = { ...layout, colorway: series[isDark() ? "dark" : "light"] };
    result.paper_bgcolor = result.plot_bgcolor = "rgba(0,0,0,0)";
    result.font = { color: ink, family: getComputedStyle(document.body).fontFamily, size: 13 };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        result[key] = { ...layout[key], gridcolor: line, zerolinecolor: ink, linecolor: line, automargin: true };
      }
    }
    const soft = style.getPropertyValue("--soft").trim();
    result.modebar = { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink };
    const raised = style.getPropertyValue("--raised").trim();
    result.hoverlabel = { ...layout.hoverlabel, bgcolor: raised, bordercolor: line, font: { color: ink } };
    return result;
  };

  const charts = [...document.querySelectorAll("script[data-chart]")].map((source) => ({
    element: document.getElementById(source.dataset.chart),
    figure: JSON.parse(source.textContent),
  }));

  // A group's lines and markers share one colour, as the legend promises.
  const coloured = (traces) => {
    const palette = series[isDark() ? "dark" : "light"];
    const groups = [];
    return traces.map((trace, index) => {
      const key = trace.legendgroup || `trace ${index}`;
      if (!groups.includes(key)) groups.push(key);
      const colour = palette[groups.indexOf(key) % palette.length];
      const result = { ...trace, line: { ...trace.line, color: colour }, marker: { ...trace.marker, color: colour } };
      if (trace.type === "heatmap") result.textfont = { color: getComputedStyle(root).getPropertyValue("--ink").trim() };
      if (trace.error_x) result.error_x = { ...trace.error_x, color: colour };
      if (trace.error_y) result.error_y = { ...trace.error_y, color: colour };
      return result;
    });
  };

  const draw = () => {
    if (typeof Plotly === "undefined") return;
    for (const { element, figure } of charts) {
      if (!element.checkVisibility()) continue; // on a page that is not shown: it has no width yet
      const settings = {
        responsive: true, displaylogo: false, scrollZoom: figure.layout.dragmode === "pan",
        modeBarButtonsToRemove: ["select2d", "lasso2d"], displayModeBar: innerWidth > 640 ? "hover" : false,
        showSendToCloud: false, plotlyServerURL: "", // by default plotly offers to upload the chart
      };
      const drawn = element.classList.contains("js-plotly-plot");
      Plotly.react(element, coloured(figure.data), themed(figure.layout), settings).then(silence);
      if (drawn) Plotly.Plots.resize(element); // the window may have changed while its page was hidden
    }
  };

  // A chart's name says its finding and the table under it its numbers; plotly's own nameless icons only disturb.
  const silence = () => {
    for (const extra of document.querySelectorAll(".modebar, #js-plotly-tester")) extra.setAttribute("aria-hidden", "true");
  };

  for (const view of document.querySelectorAll("button[data-view]")) {
    const range = (text) => text.split(",").map(Number);
    view.addEventListener("click", () => {
      if (typeof Plotly === "undefined") return;
      const to = { "xaxis.range": range(view.dataset.x), "yaxis.range": range(view.dataset.y) };
      Plotly.relayout(document.getElementById(view.dataset.view), to);
    });
  }

  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    label();
    draw();
  });
  document.addEventListener("pageshown", draw);
  dark.addEventListener("change", () => { label(); draw(); });
  label();
  draw();
})();
