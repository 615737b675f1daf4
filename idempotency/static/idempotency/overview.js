/* Renews the page "Locks and duplicates" while somebody looks at it. */
"use strict";

(() => {
    const bar = document.getElementById("idempotency-refresh");
    if (!bar) {
        return;
    }
    const said = document.getElementById("idempotency-said");
    const updated = document.getElementById("idempotency-updated");
    const button = document.getElementById("idempotency-pause");
    const words = bar.dataset;
    const every = Number(words.every) * 1000;
    const seldom = Number(words.seldom) * 1000;
    const longest = 300000;
    const patience = 20000;
    const quietFor = 300000;

    const shown = new Map();
    let timer = 0;
    let asked = null;
    let failures = 0;
    let isPaused = false;
    let hasEnded = false;
    let sumsAt = Date.now();
    let renewedAt = Date.now();
    let announcedAt = Date.now();

    function say(text, isAlarm = false) {
        said.textContent = text;
        said.classList.toggle("idempotency-alarm", isAlarm);
    }

    function wait(milliseconds) {
        clearTimeout(timer);
        if (!isPaused && !hasEnded && !document.hidden) {
            timer = setTimeout(renew, milliseconds);
        }
    }

    function stop() {
        clearTimeout(timer);
        if (asked) {
            asked.abort();
            asked = null;
        }
    }

    function pauseBetween() {
        return Math.min(every * 2 ** failures, longest);
    }

    async function renew() {
        stop();
        const own = new AbortController();
        const tooLate = setTimeout(() => own.abort(), patience);
        asked = own;
        const withSums = Date.now() - sumsAt >= seldom - 500;
        const query = new URLSearchParams({
            window: words.window,
            format: withSums ? "part" : "now",
        });
        try {
            const answer = await fetch(`?${query}`, {
                credentials: "same-origin",
                redirect: "manual",
                signal: own.signal,
            });
            if (answer.type === "opaqueredirect" || answer.status === 403) {
                end();
                return;
            }
            if (!answer.ok) {
                throw new Error(answer.statusText);
            }
            const text = await answer.text();
            if (asked === own) {
                show(text, withSums);
                wait(every);
            }
        } catch {
            if (asked === own) {
                fail();
            }
        } finally {
            clearTimeout(tooLate);
        }
    }

    function show(text, withSums) {
        const parts = new DOMParser().parseFromString(text, "text/html").body.firstElementChild;
        if (!parts || parts.id !== "idempotency-parts") {
            throw new Error("not the page");
        }
        for (const fresh of [...parts.children]) {
            replace(fresh);
        }
        const now = Date.now();
        updated.textContent = parts.dataset.at;
        renewedAt = now;
        sumsAt = withSums ? now : sumsAt;
        if (failures || now - announcedAt > quietFor) {
            say(`${words.renewed} ${parts.dataset.at}`);
            announcedAt = now;
        }
        failures = 0;
    }

    function replace(fresh) {
        const old = document.getElementById(fresh.id);
        const html = fresh.innerHTML;
        if (!old || shown.get(fresh.id) === html) {
            return;
        }
        shown.set(fresh.id, html);
        const focused = placeOf(old, document.activeElement);
        for (const one of fresh.querySelectorAll("details[id]")) {
            one.open = document.getElementById(one.id)?.open ?? false;
        }
        const scrolled = [...old.querySelectorAll(".idempotency-table[id]")].map((one) => [
            one.id,
            one.scrollLeft,
        ]);
        old.replaceChildren(...[...fresh.childNodes].map((one) => document.adoptNode(one)));
        letKeysScroll();
        for (const [id, left] of scrolled) {
            document.getElementById(id)?.scrollTo({ left, behavior: "instant" });
        }
        if (focused) {
            old.querySelector(focused)?.focus({ preventScroll: true });
        }
    }

    function placeOf(part, element) {
        if (!element || element === part || !part.contains(element)) {
            return "";
        }
        if (element.id) {
            return `#${CSS.escape(element.id)}`;
        }
        if (element.hasAttribute("href")) {
            return `[href="${CSS.escape(element.getAttribute("href"))}"]`;
        }
        return `#${CSS.escape(element.closest("[id]").id)} ${element.localName}`;
    }

    /* What is wider than the screen can be reached, and so scrolled, by the keyboard. */
    function letKeysScroll() {
        for (const one of document.querySelectorAll(".idempotency-table")) {
            if (one.scrollWidth > one.clientWidth) {
                one.tabIndex = 0;
                one.setAttribute("role", "region");
                one.setAttribute("aria-label", one.dataset.label);
            } else if (one !== document.activeElement) {
                one.removeAttribute("tabindex");
                one.removeAttribute("role");
                one.removeAttribute("aria-label");
            }
        }
    }

    function fail() {
        failures += 1;
        const next = pauseBetween();
        say(words.failed.replace("%s", String(Math.round(next / 1000))), true);
        wait(next);
    }

    function end() {
        hasEnded = true;
        stop();
        button.hidden = true;
        say(words.ended, true);
    }

    function pause(isNow) {
        isPaused = isNow;
        button.textContent = isNow ? button.dataset.resume : button.dataset.pause;
        say(isNow ? words.paused : words.on);
        if (isNow) {
            stop();
        } else {
            failures = 0;
            wait(0);
        }
    }

    button.hidden = false;
    button.addEventListener("click", () => pause(!isPaused));
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) {
            stop();
        } else {
            wait(Math.max(0, pauseBetween() - (Date.now() - renewedAt)));
        }
    });
    window.addEventListener("resize", letKeysScroll);
    document.addEventListener("toggle", letKeysScroll, true);
    for (const part of document.querySelectorAll(".idempotency-part")) {
        shown.set(part.id, part.innerHTML);
    }
    letKeysScroll();
    say(words.on);
    wait(every);
})();
