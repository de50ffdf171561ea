// Live values by server-sent events; figures on the page stay when the stream is away.
(function () {
  "use strict";
  var pile = document.querySelector("[data-live=reading]");
  var arrival = document.querySelector("[data-live=arrival]");
  if (!pile && !arrival) { return; }
  var address = "/api/v1/events";
  if (pile) {
    address += "?" + new URLSearchParams({
      connector: pile.dataset.connector, station: pile.dataset.station, operator: pile.dataset.operator
    });
  }
  var number = new Intl.NumberFormat("en-US");

  function show(root, name, text) {
    var place = root.querySelector("[data-live-value=" + name + "]");
    if (place) { place.textContent = text; }
  }

  var source = new EventSource(address);
  source.addEventListener("arrival", function (event) {
    if (!arrival) { return; }
    var told = JSON.parse(event.data);
    ["stations_recent", "messages", "readings"].forEach(function (name) {
      show(arrival, name, number.format(told[name]));
    });
  });
  source.addEventListener("reading", function (event) {
    if (!pile) { return; }
    var told = JSON.parse(event.data);
    show(pile, "energy", (told.energy_wh / 1000).toFixed(3).replace(/\B(?=(\d{3})+(?=\.))/g, ","));
    if (told.power_w !== null) { show(pile, "power", (told.power_w / 1000).toFixed(2)); }
  });
  window.addEventListener("pagehide", function () { source.close(); });
})();
