/* Draws the page's charts with Chart.js, in the page's own colours, and again when those change: the reader's light or
 * dark, and print, which is always light. */
"use strict";
(() => {
  const root = document.documentElement;
  const color = name => getComputedStyle(root).getPropertyValue("--" + name).trim();
  const alpha = (hex, a) => hex + Math.round(255 * a).toString(16).padStart(2, "0");
  const markers = ["circle", "triangle", "rect", "rectRot", "star", "cross"]; /* by hue, for eyes without colour */
  const short = value => Math.abs(value) >= 1000 ? value.toLocaleString("en") : String(+value.toPrecision(4));

  const shortRound = value => [1, 2, 5].includes(+value.toExponential(3).split("e")[0]) ? short(value) : null;

  /* How a series of each style is drawn. */
  const styles = {
    raw: hue => ({ borderColor: alpha(hue, .22), borderWidth: 1, pointRadius: 0, pointHitRadius: 0, raw: true }),
    line: (hue, model) => ({ borderColor: hue, borderWidth: model === 0 ? 3.5 : 1.75, pointRadius: 0 }),
    dashed: hue => ({ borderColor: hue, borderWidth: 1.5, borderDash: [5, 4], pointRadius: 0 }),
    points: hue => ({ borderColor: hue, borderWidth: 1, borderDash: [3, 3], pointRadius: 4, pointBorderWidth: 1.5,
                      pointBackgroundColor: color("paper") }),
    layers: hue => ({ borderColor: hue, borderWidth: 2, pointRadius: 3.5, pointBackgroundColor: hue }),
  };

  /* Later models above earlier ones and thinner, so that curves that coincide both show. */
  const dataset = (series, i) => ({
    label: series.name,
    order: -i,
    clip: 8, /* pixels: points on the frame stay whole */
    data: series.data.map(([x, y]) => ({ x, y })),
    pointStyle: markers[series.hue],
    ...styles[series.style](color("hue" + series.hue), series.model),
  });

  const axis = (title, extra) => ({
    type: "linear",
    title: { display: true, text: title, color: color("soft") },
    grid: { color: color("line"), drawBorder: false, tickLength: 4 },
    ticks: { color: color("soft"), maxRotation: 0, autoSkipPadding: 18, callback: short },
    ...extra,
  });

  const logarithmic = () => ({ type: "logarithmic", ticks: { ...axis("").ticks, callback: shortRound } });

  /* Little more than the numbers need: Chart.js would go on to the next power of ten. */
  const logarithmicValues = series => {
    const values = series.flatMap(one => one.data.map(([, y]) => y)).filter(y => y > 0);
    return { ...logarithmic(), min: Math.min(...values) / 1.25, max: Math.max(...values) * 1.25 };
  };

  /* From the first point to the last; where they are few, each has its tick. */
  const logarithmicPlaces = series => {
    const places = [...new Set(series.flatMap(one => one.data.map(([x]) => x)))].sort((a, b) => a - b);
    const ends = { ...logarithmic(), min: places[0], max: places[places.length - 1] };
    return places.length > 12 ? ends : {
      ...ends,
      ticks: { ...ends.ticks, callback: short },
      afterBuildTicks: scale => { scale.ticks = places.map(value => ({ value })); },
    };
  };

  const tooltip = () => ({
    filter: item => !item.dataset.raw,
    backgroundColor: color("ink"), titleColor: color("paper"), bodyColor: color("paper"),
    displayColors: false, cornerRadius: 3, padding: 9,
    callbacks: {
      title: items => items.length ? items[0].chart.config.data.x + " " + short(items[0].parsed.x) : "",
      label: item => item.dataset.label + ": " + short(item.parsed.y),
    },
  });

  const options = chart => ({
    animation: false,
    responsive: true,
    maintainAspectRatio: false,
    font: { family: getComputedStyle(document.body).fontFamily },
    interaction: { mode: "x", intersect: false, axis: "x" },
    plugins: { legend: { display: false }, tooltip: tooltip() },
    scales: {
      x: axis(chart.x, chart.log_x ? logarithmicPlaces(chart.series)
                                   : { ticks: { ...axis("").ticks, ...(chart.x === "layer" && { precision: 0 }) } }),
      y: axis(chart.y, chart.log_y ? logarithmicValues(chart.series) : { beginAtZero: chart.from_zero }),
    },
  });

  const charts = [...document.querySelectorAll(".chart")].map(box => ({
    canvas: box.querySelector("canvas"),
    data: JSON.parse(box.querySelector("script").textContent),
  }));

  const draw = () => charts.forEach(chart => {
    if (chart.drawn) chart.drawn.destroy();
    chart.drawn = new Chart(chart.canvas, {
      type: "line",
      data: { x: chart.data.x, datasets: chart.data.series.map(dataset) },
      options: options(chart.data),
    });
  });

  const print = on => {
    root.classList.toggle("print", on);
    draw();
  };

  draw();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
})();
