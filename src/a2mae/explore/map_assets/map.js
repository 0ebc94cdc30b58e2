"use strict";
/* The page's own script: layers from MAP_DATA, a swipe between two dates, and what lies where somebody clicks. */
(() => {
  const data = MAP_DATA;
  const byId = (id) => document.getElementById(id);
  const make = (tag, text, name) => {
    const found = document.createElement(tag);
    if (text !== undefined) found.textContent = text;
    if (name) found.className = name;
    return found;
  };
  const STATES = {
    kept: { words: "kept", colour: "#0b5cad" },
    "left out": { words: "left out by pruning", colour: "#e69f00", dashArray: "6 5" },
    none: { words: "without image set: all images rejected", colour: "#8a8f99", dashArray: "2 5" },
  };
  const position = (lat, lon, digits = 4) =>
    `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? "S" : "N"}, ${Math.abs(lon).toFixed(digits)}° ${lon < 0 ? "W" : "E"}`;
  const boundsOf = (told) => L.latLngBounds([told.bounds[0], told.bounds[1]], [told.bounds[2], told.bounds[3]]);

  const map = L.map("map", { minZoom: 1, maxZoom: 20, worldCopyJump: true, zoomSnap: 0.5, attributionControl: false });
  L.control.scale({ imperial: false }).addTo(map);
  const panes = {};
  for (const [name, z] of [["first", 210], ["second", 220], ["exact", 300]]) {
    panes[name] = map.createPane(name);
    panes[name].style.zIndex = z;
  }

  /* Tiles that are there; no other is asked for. */
  const Tiles = L.TileLayer.extend({
    initialize(told, folder, suffix, pane) {
      this.told = told;
      this.there = new Set(told.tiles.split(" "));
      L.TileLayer.prototype.initialize.call(this, `${MAP_FILES}${folder}/{z}/{x}/{y}.${suffix}`, {
        tileSize: 512, zoomOffset: -1, minZoom: Math.max(told.coarsest - 2, 1), maxZoom: 20,
        minNativeZoom: told.coarsest + 1, maxNativeZoom: told.finest + 1, bounds: boundsOf(told), pane,
      });
    },
    _isValidTile(at) {
      return L.TileLayer.prototype._isValidTile.call(this, at) && this.there.has(`${at.z - 1}/${at.x}/${at.y}`);
    },
  });

  /* Areas. */
  const areas = new Map();
  for (const place of data.places) {
    const bounds = L.latLngBounds(place.rings.flat());
    const known = areas.get(place.area);
    if (known) { known.bounds.extend(bounds); known.count += 1; } else areas.set(place.area, { bounds, count: 1 });
  }
  const area = byId("area");
  for (const [number, found] of areas) {
    const centre = found.bounds.getCenter();
    const option = make("option", `${position(centre.lat, centre.lng, 2)} (${found.count} ${found.count === 1 ? "place" : "places"})`);
    option.value = String(number);
    area.append(option);
  }
  const results = data.results.map((told) => ({ told, bounds: boundsOf(told) }));
  const whole = L.latLngBounds([]);
  for (const found of [...areas.values(), ...results]) whole.extend(found.bounds);
  const all = make("option", "everything");
  all.value = "all";
  area.append(all);
  const go = (bounds) => map.fitBounds(bounds, { padding: [20, 20], maxZoom: 17, animate: false });
  area.addEventListener("change", () => go(area.value === "all" ? whole : areas.get(Number(area.value)).bounds));
  byId("where").hidden = areas.size === 0;

  /* Images: those of the ground in view, one of them or two with a border between. */
  const first = byId("first"), second = byId("second"), compare = byId("compare"), swipe = byId("swipe"), line = byId("line");
  const shown = { first: null, second: null };
  const label = (told) => `${told.day}, ${told.sensor}`;
  const colour = () => document.querySelector('input[name="colour"]:checked').value;
  const show = (which, number) => {
    const told = data.images[number];
    const wanted = told && told.colours.includes(colour()) ? colour() : "true";
    const key = told ? `${number}/${wanted}` : null;
    if (shown[which] && shown[which].key === key) return;
    if (shown[which]) shown[which].layer.remove();
    shown[which] = null;
    if (!told) return;
    const layer = new Tiles(told, `${told.folder}/${wanted}`, "webp", which);
    shown[which] = { key, layer };
    layer.setOpacity(byId("image-opacity").value / 100).addTo(map);
  };
  const drawImages = () => {
    show("first", first.value === "" ? -1 : Number(first.value));
    show("second", compare.checked && second.value !== "" ? Number(second.value) : -1);
    const both = Boolean(compare.checked && shown.second);
    for (const element of [swipe, line, byId("left-date"), byId("right-date")]) element.hidden = !both;
    second.disabled = !compare.checked;
    if (both) {
      byId("left-date").textContent = label(data.images[Number(first.value)]);
      byId("right-date").textContent = label(data.images[Number(second.value)]);
    }
    clip();
  };
  const clip = () => {
    const size = map.getSize(), thumb = 40;
    const at = Math.round(thumb / 2 + (swipe.value / 1000) * (size.x - thumb));
    line.style.left = `${at}px`;
    const from = map.containerPointToLayerPoint([0, 0]), to = map.containerPointToLayerPoint(size), x = from.x + at;
    const rect = (left, right) => `rect(${from.y}px, ${right}px, ${to.y}px, ${left}px)`;
    panes.first.style.clip = line.hidden ? "" : rect(from.x, x);
    panes.second.style.clip = line.hidden ? "" : rect(x, to.x);
  };
  const listImages = () => {
    const view = map.getBounds();
    const here = data.images.map((told, number) => ({ told, number })).filter(({ told }) => boundsOf(told).intersects(view));
    here.sort((a, b) => (label(a.told) < label(b.told) ? -1 : 1));
    for (const [list, last] of [[first, false], [second, true]]) {
      const before = list.value;
      list.replaceChildren();
      const none = make("option", here.length ? "none" : "none here");
      none.value = "";
      list.append(none);
      for (const { told, number } of here) {
        const option = make("option", label(told));
        option.value = String(number);
        list.append(option);
      }
      /* The same date as before where it is still here; else the sensor that shows most places, its first or last date. */
      if (here.some(({ number }) => String(number) === before)) list.value = before;
      else if (here.length) {
        const most = Math.max(...here.map(({ told }) => told.places));
        const wide = here.filter(({ told }) => told.places === most);
        const finest = Math.max(...wide.map(({ told }) => told.finest));
        const { sensor } = wide.find(({ told }) => told.finest === finest).told;
        const dates = wide.filter(({ told }) => told.sensor === sensor);
        list.value = String(dates[last ? dates.length - 1 : 0].number);
      }
    }
    drawImages();
  };
  for (const element of [first, second, compare]) element.addEventListener("change", drawImages);
  for (const element of document.querySelectorAll('input[name="colour"]')) element.addEventListener("change", drawImages);
  byId("image-opacity").addEventListener("input", (event) => {
    for (const found of Object.values(shown)) if (found) found.layer.setOpacity(event.target.value / 100);
  });
  swipe.addEventListener("input", clip);
  map.on("move zoom resize zoomend", clip);
  byId("images").hidden = data.images.length === 0;

  /* Results. */
  for (const [number, found] of results.entries()) {
    const { told } = found;
    found.layer = new Tiles(told, told.folder, told.suffix, "exact");
    found.layer.setZIndex(results.length - number);
    const item = make("li"), line = make("label"), box = make("input"), opacity = make("input");
    box.type = "checkbox";
    box.id = `layer-${number}`;
    opacity.type = "range";
    opacity.className = "opacity";
    opacity.min = 0;
    opacity.max = 100;
    opacity.value = 80;
    opacity.setAttribute("aria-label", `Opacity of ${told.title}`);
    found.layer.setOpacity(0.8);
    const legend = make("div", undefined, "legend");
    for (const [shade, words] of told.legend) {
      const entry = make("span"), chip = make("i");
      chip.style.background = shade;
      entry.append(chip, words);
      legend.append(entry);
    }
    opacity.hidden = legend.hidden = true;
    box.addEventListener("change", () => {
      opacity.hidden = legend.hidden = !box.checked;
      if (!box.checked) { found.layer.remove(); return; }
      found.layer.addTo(map);
      if (!map.getBounds().intersects(found.bounds) || map.getZoom() < told.coarsest - 2) go(found.bounds);
    });
    opacity.addEventListener("input", () => found.layer.setOpacity(opacity.value / 100));
    line.append(box, ` ${told.title}`);
    item.append(line, opacity, legend);
    byId("layers").append(item);
  }
  byId("results").hidden = results.length === 0;

  /* Footprints, and what was found. */
  const groups = [];
  const group = (id, words, style, items) => {
    if (!items.length) return;
    const layer = L.layerGroup();
    for (const item of items) {
      for (const ring of item.rings) L.polygon(ring, { weight: 2, fill: false, interactive: false, ...style }).addTo(layer);
      const centre = L.latLngBounds(item.rings.flat()).getCenter();
      if (item.rank) {
        const icon = L.divIcon({ className: "rank", html: String(Number(item.rank)), iconSize: [24, 19] });
        L.marker(centre, { icon, interactive: false, keyboard: false }).addTo(layer);
      } else L.circleMarker(centre, { radius: 2, interactive: false, className: "dot", ...style, dashArray: null }).addTo(layer);
    }
    const item = make("li"), line = make("label"), box = make("input"), chip = make("i");
    box.type = "checkbox";
    box.id = `show-${id}`;
    box.checked = true;
    chip.style.borderColor = style.color;
    if (style.dashArray) chip.className = "dashed";
    box.addEventListener("change", () => (box.checked ? layer.addTo(map) : layer.remove()));
    line.append(box, " ", chip, `${words} (${items.length})`);
    item.append(line);
    byId("states").append(item);
    groups.push(layer);
  };
  for (const [state, { words, colour: color, dashArray }] of Object.entries(STATES)) {
    group(state.replace(" ", "-"), words, { color, dashArray }, data.places.filter((place) => place.state === state));
  }
  group("examples", "examples of the search", { color: "#7a0bad", weight: 4 }, data.examples);
  group("hits", "found by the search", { color: "#d62770", weight: 3 }, data.hits);
  byId("places").hidden = groups.length === 0;
  for (const layer of groups) layer.addTo(map);
  byId("note").textContent = data.note;
  byId("note").hidden = !data.note;

  /* Buttons that lead to a place. */
  const placeOf = new Map(data.places.map((place) => [place.id, place]));
  const button = (place, head, words, bounds) => {
    const found = make("button", undefined, "go"), text = make("span", head);
    found.type = "button";
    if (place && place.picture) {
      const picture = make("img");
      picture.src = MAP_FILES + place.picture;
      picture.alt = "";
      found.append(picture);
    } else found.append(make("span", undefined, "blank"));
    text.append(make("small", words));
    found.append(text);
    found.addEventListener("click", () => {
      go(bounds);
      tell(bounds.getCenter());
    });
    return found;
  };
  for (const hit of data.hits.slice(0, 50)) {
    const item = make("li");
    const words = `${hit.sensor}, ${String(hit.datetime).slice(0, 10)}, ${position(hit.lat, hit.lon)}`;
    item.append(button(placeOf.get(hit.location_id), `${hit.rank}. score ${hit.score.toFixed(2)}`, words, L.latLngBounds(hit.rings.flat())));
    byId("hits").append(item);
  }
  byId("search").hidden = data.hits.length === 0;

  /* What is here? */
  const inside = (ring, { lat, lng }) => {
    let found = false;
    for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
      const [y, x] = ring[i], [v, u] = ring[j];
      if (y > lat !== v > lat && lng < ((u - x) * (lat - y)) / (v - y) + x) found = !found;
    }
    return found;
  };
  const covers = (item, at) => item.rings.some((ring) => inside(ring, at));
  let received = null;
  window.mapValues = (name, packed) => { received = { name, packed }; };
  const script = (source) => new Promise((resolve) => {
    const element = make("script");
    element.src = source;
    element.onload = element.onerror = () => { element.remove(); resolve(); };
    document.head.append(element);
  });
  const cache = new Map();
  const unpacked = async (told, key) => {
    const name = `${told.numbers}/${key}`;
    if (!cache.has(name)) {
      received = null;
      await script(`${MAP_FILES}${name}.js`);
      if (!received) return null;
      const bytes = Uint8Array.from(atob(received.packed), (letter) => letter.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
      cache.set(name, new Uint8Array(await new Response(stream).arrayBuffer()));
    }
    return cache.get(name);
  };
  const numbersAt = async ({ told, layer }, at) => {
    const pixel = map.project(at, told.finest + 1).floor(), tile = pixel.divideBy(512).floor();
    const key = `${told.finest}/${tile.x}/${tile.y}`;
    if (!layer.there.has(key)) return null;
    const numbers = await unpacked(told, key), place = (pixel.y - tile.y * 512) * 512 + pixel.x - tile.x * 512;
    if (!numbers || numbers[place] === 255) return null;
    if (told.kind === "classes") {
      const sure = told.bands > 1 ? `, probability ${Math.round(numbers[512 * 512 + place] / 2.5)} %` : "";
      return `${told.names[numbers[place]]}${sure}`;
    }
    const [low, high, most] = told.range;
    return `${(low + (numbers[place] / most) * (high - low)).toPrecision(3)} ${told.units}`;
  };
  let asked = 0;
  const tell = async (at) => {
    const turn = (asked += 1), box = make("div");
    const place = data.places.find((item) => covers(item, at));
    const heading = make("h3", place ? "Place" : "No place of the data set");
    if (place) heading.append(` ${place.id}`);
    box.append(heading, make("p", position(at.lat, at.lng), "note"));
    for (const found of results.filter(({ told }) => told.numbers)) {
      const value = await numbersAt(found, at);
      if (value !== null) box.append(make("p", `${found.told.title}: ${value}`));
    }
    const example = data.examples.find((item) => covers(item, at)), hit = data.hits.find((item) => covers(item, at));
    if (example) box.append(make("p", "An example of the search."));
    if (hit) box.append(make("p", `Found by the search: rank ${hit.rank}, score ${hit.score.toFixed(2)}.`));
    if (place) {
      const words = { kept: "Kept", "left out": "Left out by pruning", none: "No image set" }[place.state];
      const why = [...new Set(place.sets.map((set) => set.why).filter(Boolean))].join("; ");
      const split = [...new Set(place.sets.map((set) => set.split).filter(Boolean))].join(", ");
      box.append(make("p", `${words}${why ? `: ${why}` : ""}.${split ? ` Split: ${split}.` : ""}`));
      const dates = {};
      for (const told of data.images.filter((told) => told.area === place.area && boundsOf(told).contains(at))) {
        (dates[told.sensor] = dates[told.sensor] || []).push(told.day);
      }
      if (Object.keys(dates).length) box.append(make("h4", "Images"));
      for (const [sensor, days] of Object.entries(dates)) box.append(make("p", `${sensor}: ${days.join(", ")}`));
      if (place.rejected.length) {
        box.append(make("h4", "Rejected images"));
        for (const [sensor, day, reason] of place.rejected) box.append(make("p", `${sensor}, ${day}: ${reason}`));
      }
      if (place.neighbours.length) box.append(make("h4", "Looks most like"));
      for (const near of place.neighbours) {
        const other = near.place < 0 ? null : data.places[near.place];
        const ground = other ? L.latLngBounds(other.rings.flat()) : L.latLng(near.lat, near.lon).toBounds(2000);
        box.append(button(other, `score ${near.score.toFixed(2)}`, position(near.lat, near.lon), ground));
      }
    }
    if (turn === asked) L.popup({ maxWidth: 300, minWidth: 260, autoPanPadding: [20, 20] }).setLatLng(at).setContent(box).openOn(map);
  };
  map.on("click", (event) => tell(event.latlng));

  /* Degrees, where there is no other ground to see. */
  const degrees = L.layerGroup().addTo(map);
  const drawDegrees = () => {
    degrees.clearLayers();
    const view = map.getBounds(), span = Math.max(view.getEast() - view.getWest(), view.getNorth() - view.getSouth());
    const step = [30, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005].find((size) => span / size > 4) || 0.005;
    const digits = Math.max(0, Math.ceil(-Math.log10(step)));
    const style = { color: "#8a8f99", weight: 0.6, opacity: 0.7, interactive: false };
    const note = (at, words) => L.marker(at, {
      icon: L.divIcon({ className: "degree", html: words, iconSize: null }), interactive: false, keyboard: false,
    }).addTo(degrees);
    const south = Math.max(view.getSouth(), -85), north = Math.min(view.getNorth(), 85);
    const bottom = Math.max(map.containerPointToLatLng([0, map.getSize().y - 20]).lat, -84);
    for (let lon = Math.ceil(view.getWest() / step) * step; lon <= view.getEast(); lon += step) {
      L.polyline([[south, lon], [north, lon]], style).addTo(degrees);
      const free = map.latLngToContainerPoint([bottom, lon]).x > 110; /* beside the scale */
      if (free) note([bottom, lon], `${lon.toFixed(digits)}°`);
    }
    for (let lat = Math.ceil(south / step) * step; lat <= north; lat += step) {
      L.polyline([[lat, view.getWest()], [lat, view.getEast()]], style).addTo(degrees);
      note([lat, map.containerPointToLatLng([map.getSize().x - 50, 0]).lng], `${lat.toFixed(digits)}°`);
    }
  };
  map.on("moveend", () => {
    drawDegrees();
    listImages();
    map.getContainer().classList.toggle("near", map.getZoom() >= 11);
  });
  map.on("popupopen popupclose", (event) => document.querySelector("main").classList.toggle("told", event.type === "popupopen"));

  /* Where most can be seen at first: the area under the first map, else the first. */
  const start = [...areas].find(([, found]) => results.length && found.bounds.intersects(results[0].bounds)) || [...areas][0];
  if (start) { area.value = String(start[0]); go(start[1].bounds); }
  else go(whole);
  window.a2mae = { map, results, shown, readyMs: performance.now() };
})();
