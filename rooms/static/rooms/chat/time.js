// Formats times in the language and time zone of the browser.

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "short" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const dateFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "long" });
const relativeFormat = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

export const shortTime = (date) => timeFormat.format(date);
export const fullTime = (date) => fullFormat.format(date);

const midnight = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate());

export const isSameDay = (one, other) => one.toDateString() === other.toDateString();

/** Returns "Today", "Yesterday", "Monday, 3 March" or, for another year, the date with its year. */
export function dayName(date, now = new Date()) {
  // Rounded, because a day with a change of daylight saving time is not 24 hours long.
  const days = Math.round((midnight(date) - midnight(now)) / 86_400_000);
  if (days === 0 || days === -1) {
    const name = relativeFormat.format(days, "day");
    return name[0].toLocaleUpperCase() + name.slice(1);
  }
  return date.getFullYear() === now.getFullYear() ? dayFormat.format(date) : dateFormat.format(date);
}
