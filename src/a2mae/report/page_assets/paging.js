"use strict";
// Shows one page at a time: the address says which. Without this file all pages stand below one another.
(() => {
  const root = document.documentElement;
  const pages = [...document.querySelectorAll(".page")];
  const links = [...document.querySelectorAll("#contents a")];
  const strip = document.querySelector("#contents ol");
  const title = document.title;

  // The id of what an address asks for: a page, `/all`, or the page that a chapter or a table stands on.
  const asked = (hash) => {
    const found = document.getElementById(decodeURIComponent(hash.slice(1)));
    if (found === null) return hash.startsWith("#/") || hash === "" ? pages[0].id : null;
    if (found.id === "/all") return found.id;
    return found.closest(".page")?.id ?? null;
  };

  const show = (id) => {
    root.dataset.view = id === "/all" ? "all" : "page";
    for (const page of pages) page.hidden = id !== "/all" && page.id !== id;
    for (const link of links) {
      const current = link.hash.slice(1) === id;
      if (!current) {
        link.removeAttribute("aria-current");
        continue;
      }
      link.setAttribute("aria-current", "page");
      strip.scrollLeft = link.offsetLeft - strip.offsetLeft - 20; // on a phone the links are one line
    }
    const heading = pages.find((page) => page.id === id)?.querySelector("h2").textContent ?? "Whole report";
    document.title = `${heading} · ${title}`;
    document.dispatchEvent(new Event("pageshown"));
  };

  const follow = () => {
    const id = asked(location.hash);
    if (id === null) return; // an anchor outside the pages: the reader stays where they are
    show(id);
    if (location.hash.slice(1) !== id) { // a chapter of the page
      document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
      return;
    }
    scrollTo({ top: 0, behavior: "instant" });
    // Screen readers say the new page's heading, and the next Tab goes on from there.
    const page = document.getElementById(id);
    page.querySelector("h2").focus({ preventScroll: true });
  };

  let before = [];
  addEventListener("beforeprint", () => {
    before = pages.filter((page) => page.hidden);
    for (const page of before) page.hidden = false;
    document.dispatchEvent(new Event("pageshown"));
  });
  addEventListener("afterprint", () => { for (const page of before) page.hidden = true; });
  addEventListener("hashchange", follow);
  show(asked(location.hash) ?? pages[0].id);
  if (location.hash && !location.hash.startsWith("#/")) document.querySelector(location.hash)?.scrollIntoView();
})();
