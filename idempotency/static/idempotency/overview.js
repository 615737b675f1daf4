"use strict";

// Brings the numbers up to date in place, while somebody looks; without it, there is a link.
{
    const bar = document.querySelector("[data-idempotency-refresh]");
    const part = document.getElementById("idempotency-part");
    const told = bar.querySelector(".idempotency-updated");
    const button = bar.querySelector(".idempotency-pause");
    const every = Number(bar.dataset.idempotencyRefresh) * 1000;
    const slowest = 12;
    let isPaused = false;
    let isAsking = false;
    let failures = 0;
    let timer = 0;

    const say = (words) => {
        if (told.textContent !== words) {
            told.textContent = words;
        }
    };

    const updated = () => part.querySelector("[data-updated]").dataset.updated;

    const plan = () => {
        clearTimeout(timer);
        if (!isPaused && !document.hidden) {
            timer = setTimeout(refresh, every * Math.min(slowest, 2 ** failures));
        }
    };

    const replace = (html) => {
        const open = [...part.querySelectorAll("details")].map((details) => details.open);
        part.innerHTML = html;
        part.querySelectorAll("details").forEach((details, index) => {
            details.open = Boolean(open[index]);
        });
    };

    // Whoever is in the middle of the page, by keyboard or with a selection, is left in peace.
    const isUsed = () => {
        const selection = document.getSelection();
        return part.contains(document.activeElement) ||
            (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
    };

    async function refresh() {
        if (isAsking || isUsed()) {
            plan();
            return;
        }
        isAsking = true;
        try {
            const address = new URL(location.href);
            address.searchParams.set("format", "part");
            const response = await fetch(address, {headers: {"X-Requested-With": "fetch"}});
            if (!response.ok || response.redirected) {
                throw new Error(String(response.status));
            }
            replace(await response.text());
            failures = 0;
            say(updated());
        } catch {
            failures += 1;
            say(bar.dataset.failed);
        } finally {
            isAsking = false;
            plan();
        }
    }

    button.addEventListener("click", () => {
        isPaused = !isPaused;
        button.textContent = isPaused ? button.dataset.resume : button.dataset.pause;
        say(isPaused ? bar.dataset.paused : updated());
        if (isPaused) {
            plan();
        } else {
            refresh();
        }
    });
    document.addEventListener("visibilitychange", () => {
        if (document.hidden || isPaused) {
            plan();
        } else {
            refresh();
        }
    });
    button.hidden = false;
    say(updated());
    plan();
}
