/* Civil dates by Howard Hinnant's days_from_civil: years begin in March, so that the
 * leap day is the last of its year, and 400 years are an era of 146097 days. No libc
 * calendar: it knows locales and time zones, and neither belongs in a stored time. */
#include "replica/base/clock.h"

#include <string.h>
#include <time.h>

enum {
    NS_PER_S = 1000000000,
    NS_PER_MS = 1000000,
    DAYS_PER_ERA = 146097,
    DAYS_TO_1970 = 719468, /* from 0000-03-01 */
};

static const int64_t ms_per_day = 86400000;
static const int64_t earliest_ms = -62167219200000; /* 0000-01-01T00:00:00.000Z */
static const int64_t latest_ms = 253402300799999; /* 9999-12-31T23:59:59.999Z */

struct instant clock_monotonic(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (struct instant){ (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec };
}

struct instant instant_add_ms(struct instant instant, uint64_t ms)
{
    uint64_t ns;

    if (__builtin_mul_overflow(ms, (uint64_t)NS_PER_MS, &ns) ||
            __builtin_add_overflow(instant.ns, ns, &ns))
        ns = UINT64_MAX;
    return (struct instant){ ns };
}

uint64_t instant_ms_until(struct instant from, struct instant to)
{
    uint64_t ns = to.ns > from.ns ? to.ns - from.ns : 0;
    return ns / NS_PER_MS + (ns % NS_PER_MS != 0);
}

bool instant_reached(struct instant now, struct instant due)
{
    return now.ns >= due.ns;
}

struct timespec instant_timespec(struct instant due)
{
    return (struct timespec){ .tv_sec = (time_t)(due.ns / NS_PER_S),
        .tv_nsec = (long)(due.ns % NS_PER_S) };
}

struct timespec deadline_in(uint64_t ms)
{
    return instant_timespec(instant_add_ms(clock_monotonic(), ms));
}

int64_t clock_wall_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / NS_PER_MS;
}

/* Days since 1970-01-01. @month 1..12, @day 1..31, @year 0..9999. */
static int64_t days_from_civil(int64_t year, int64_t month, int64_t day)
{
    int64_t y = year - (month <= 2);
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era =
            year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970;
}

static void civil_from_days(int64_t days, int *year, int *month, int *day)
{
    int64_t z = days + DAYS_TO_1970;
    int64_t era = (z >= 0 ? z : z - (DAYS_PER_ERA - 1)) / DAYS_PER_ERA;
    int64_t day_of_era = z - era * DAYS_PER_ERA;
    int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 -
                                  day_of_era / (DAYS_PER_ERA - 1)) /
            365;
    int64_t day_of_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t shifted = (5 * day_of_year + 2) / 153;

    *day = (int)(day_of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int)(shifted < 10 ? shifted + 3 : shifted - 9);
    *year = (int)(year_of_era + era * 400 + (*month <= 2));
}

/* The last @digits of @value. */
static void put_digits(char *to, unsigned digits, unsigned value)
{
    while (digits-- > 0) {
        to[digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

void clock_format(int64_t wall_ms, char text[CLOCK_TEXT])
{
    int64_t ms = wall_ms < earliest_ms ? earliest_ms : wall_ms;
    int year, month, day;

    ms = ms > latest_ms ? latest_ms : ms;
    int64_t days = (ms >= 0 ? ms : ms - (ms_per_day - 1)) / ms_per_day;
    int rest = (int)(ms - days * ms_per_day);
    civil_from_days(days, &year, &month, &day);
    memcpy(text, "0000-00-00T00:00:00.000Z", CLOCK_TEXT);
    put_digits(text, 4, (unsigned)year);
    put_digits(text + 5, 2, (unsigned)month);
    put_digits(text + 8, 2, (unsigned)day);
    put_digits(text + 11, 2, (unsigned)(rest / 3600000));
    put_digits(text + 14, 2, (unsigned)(rest / 60000 % 60));
    put_digits(text + 17, 2, (unsigned)(rest / 1000 % 60));
    put_digits(text + 20, 3, (unsigned)(rest % 1000));
}

/* Reads exactly @digits digits at *@text and moves it; false when one is missing. */
static bool take_number(const char **text, unsigned digits, int *value)
{
    *value = 0;
    for (unsigned i = 0; i < digits; i++, (*text)++) {
        if (**text < '0' || **text > '9')
            return false;
        *value = *value * 10 + (**text - '0');
    }
    return true;
}

static bool take_char(const char **text, const char *allowed)
{
    if (**text == '\0' || !strchr(allowed, **text))
        return false;
    (*text)++;
    return true;
}

static int days_in_month(int year, int month)
{
    static const int days[12] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && leap);
}

static bool take_date(const char **text, int64_t *days)
{
    int year, month, day;

    if (!take_number(text, 4, &year) || !take_char(text, "-") ||
            !take_number(text, 2, &month) || !take_char(text, "-") ||
            !take_number(text, 2, &day))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    *days = days_from_civil(year, month, day);
    return true;
}

/* Milliseconds of a fraction that may have any number of digits; later ones are cut. */
static bool take_fraction(const char **text, int *ms)
{
    int scale = 100, digit;

    *ms = 0;
    if (!take_char(text, "."))
        return true;
    if (!take_number(text, 1, &digit))
        return false;
    do {
        *ms += digit * scale;
        scale /= 10;
    } while (take_number(text, 1, &digit));
    return true;
}

static bool take_offset(const char **text, int *minutes)
{
    int sign = **text == '-' ? -1 : 1, hour, minute;

    *minutes = 0;
    if (take_char(text, "Zz"))
        return true;
    if (!take_char(text, "+-") || !take_number(text, 2, &hour) ||
            !take_char(text, ":") || !take_number(text, 2, &minute))
        return false;
    *minutes = sign * (hour * 60 + minute);
    return hour <= 23 && minute <= 59;
}

bool clock_parse(const char *text, int64_t *wall_ms)
{
    int64_t days;
    int hour, minute, second, ms, offset;

    if (!take_date(&text, &days) || !take_char(&text, "Tt ") ||
            !take_number(&text, 2, &hour) || !take_char(&text, ":") ||
            !take_number(&text, 2, &minute) || !take_char(&text, ":") ||
            !take_number(&text, 2, &second) || !take_fraction(&text, &ms) ||
            !take_offset(&text, &offset) || *text != '\0')
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;

    int64_t minutes = days * 1440 + hour * 60 + minute - offset;
    /* A leap second ends a UTC day; it is stored as the first second of the next. */
    if (second == 60 && (minutes + 1) % 1440 != 0)
        return false;
    *wall_ms = (minutes * 60 + second) * 1000 + ms;
    return true;
}
