// Times in the reader's own language and zone.

const clock = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const weekday = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const otherYear = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const clockTime = (date) => clock.format(date);
export const fullTime = (date) => full.format(date);

const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());

export const sameDay = (one, other) => one.toDateString() === other.toDateString();

/** "today", "yesterday", "Monday, 3 March" or, from another year, the whole date. */
export function dayName(date, now = new Date()) {
  // Rounded, because a day on which the clocks change is not 24 hours long.
  const days = Math.round((midnight(date) - midnight(now)) / 86_400_000);
  if (days === 0 || days === -1) {
    const name = relative.format(days, "day");
    return name[0].toLocaleUpperCase() + name.slice(1);
  }
  return date.getFullYear() === now.getFullYear() ? weekday.format(date) : otherYear.format(date);
}
