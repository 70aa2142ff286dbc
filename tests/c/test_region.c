/* Regions: what the system has mapped, with which rights, before and after each act; the counters. G13, G15, fault 15. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "harness.h"

#include "borrowing.h"
#include "region.h"

typedef struct {
    host_t host;
    tether_thread_t *thread;
    size_t page;
    long descriptors;
} desk_t;

static long descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    long n = 0;
    while (dir != NULL && readdir(dir) != NULL)
        n++;
    closedir(dir);
    return n;
}

static void open_desk(desk_t *desk)
{
    memset(desk, 0, sizeof *desk);
    host_start(&desk->host, (host_options_t){.serial = false});
    desk->thread = host_thread(&desk->host);
    desk->page = tether_page_size();
    desk->descriptors = descriptors();
}

static bool counted(desk_t *desk, uint32_t regions, uint64_t bytes)
{
    return load_relaxed(&desk->host.rt->regions) == regions && load_relaxed(&desk->host.rt->bytes_mapped) == bytes;
}

static void close_desk(desk_t *desk)
{
    CHECK(counted(desk, 0, 0));
    CHECK(descriptors() == desk->descriptors);
    host_finish(&desk->host);
}

/* ---- what the system says ---------------------------------------------------------------------------------------- */

/* The line of /proc/self/maps that the address is in. */
static bool line_of(const char *address, char *line, size_t size)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    bool found = false;
    while (maps != NULL && !found && fgets(line, (int)size, maps) != NULL) {
        unsigned long from, to;
        found = sscanf(line, "%lx-%lx", &from, &to) == 2 && (unsigned long)address >= from && (unsigned long)address < to;
    }
    if (maps != NULL)
        fclose(maps);
    return found;
}

/* "rw-p" and the like; "" where nothing is mapped. */
static const char *rights(const char *address)
{
    static _Thread_local char four[5];
    char line[512];
    four[0] = '\0';
    if (line_of(address, line, sizeof line))
        sscanf(line, "%*s %4s", four);
    return four;
}

static bool has(const char *address, const char *wanted) { return strcmp(rights(address), wanted) == 0; }

/* Are all pages of the range so? */
static bool all_have(desk_t *desk, const char *base, size_t size, const char *wanted)
{
    for (size_t at = 0; at < size; at += desk->page)
        if (!has(base + at, wanted))
            return false;
    return true;
}

/* Asks the system to read it: no signal, whatever the answer is. */
static bool readable(const char *address)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    bool is = write(ends[1], address, 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return is;
}

/* ---- acts -------------------------------------------------------------------------------------------------------- */

static bool seize(desk_t *desk, tether_region_t *region)
{
    return tether_region_seize(desk->thread, region, NULL, NULL) == TETHER_OK;
}

static void let_go(desk_t *desk, tether_region_t *region) { tether_region_let_go(desk->thread, region); }

/* Closes it; afterwards nothing is mapped there. */
static void give_back(desk_t *desk, tether_region_t *region)
{
    char *base = region->base;
    size_t mapped = region->mapped;
    CHECK(all_have(desk, base, mapped, rights(base)) && rights(base)[0] != '\0');
    CHECK(seize(desk, region));
    CHECK(tether_region_unmap(region) == 0);
    CHECK(region->base == NULL);
#ifndef __SANITIZE_THREAD__ /* which maps memory of its own at any time, perhaps here */
    CHECK(all_have(desk, base, mapped, ""));
#endif
    CHECK(!seize(desk, region)); /* for good */
}

static void map_own(desk_t *desk, tether_region_t *region, size_t size)
{
    CHECK(tether_region_map(region, desk->host.rt, size, false) == 0);
}

/* A file without a name, of `pages` pages and a bit, that begins with its offsets. */
static int file_of(desk_t *desk, size_t pages)
{
    char path[] = "/tmp/tether-region-XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0);
    for (size_t at = 0; at < pages * desk->page + 100; at += sizeof at)
        CHECK(write(fd, &at, sizeof at) == sizeof at);
    return fd;
}

static bool is_offset(const char *data, size_t offset)
{
    size_t found;
    memcpy(&found, data, sizeof found);
    return found == offset;
}

/* ---- mapping ----------------------------------------------------------------------------------------------------- */

TEST(own_pages_are_zeroed_and_whole)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    const size_t sizes[] = {1, page - 1, page, page + 1, 3 * page + 5};
    for (int i = 0; i < 5; i++) {
        tether_region_t r;
        map_own(&desk, &r, sizes[i]);
        size_t mapped = (sizes[i] + page - 1) / page * page;
        CHECK(r.nbytes == sizes[i] && r.mapped == mapped && r.data == r.base && r.lead == 0 && r.granule == page);
        CHECK((uintptr_t)r.base % page == 0 && counted(&desk, 1, mapped));
        CHECK(all_have(&desk, r.base, mapped, "rw-p"));
        for (size_t at = 0; at < mapped; at++)
            CHECK(r.data[at] == 0);
        memset(r.data, 1, sizes[i]);
        give_back(&desk, &r);
    }
    close_desk(&desk);
}

TEST(huge_pages_are_aligned_and_nothing_beside_them_is_kept)
{
    desk_t desk;
    open_desk(&desk);
    size_t huge = tether_huge_page_size();
    tether_region_t r;
    CHECK(tether_region_map(&r, desk.host.rt, huge + 1, true) == 0);
    CHECK((uintptr_t)r.base % huge == 0 && r.mapped == 2 * huge && r.granule == huge && counted(&desk, 1, 2 * huge));
    CHECK(!tether_region_may_cut(&r, desk.page) && tether_region_may_cut(&r, huge));
    give_back(&desk, &r);
    close_desk(&desk);
}

TEST(shared_memory_has_a_file_until_its_last_part_goes)
{
    desk_t desk;
    open_desk(&desk);
    tether_region_t r, left, right;
    CHECK(tether_region_map_shared(&r, desk.host.rt, desk.page + 1, "frame") == 0);
    CHECK(descriptors() == desk.descriptors + 1);
    char line[512];
    CHECK(line_of(r.base, line, sizeof line) && strstr(line, "frame") != NULL && strstr(line, "rw-s") != NULL);
    CHECK(ftruncate(r.file->fd, 0) != 0 && ftruncate(r.file->fd, 1 << 20) != 0); /* sealed */
    r.data[desk.page] = 7;
    CHECK(seize(&desk, &r) && tether_region_cut(&r, desk.page, &left, &right) == 0);
    CHECK(left.file == right.file && r.file == NULL && load_relaxed(&left.file->refs) == 2);
    give_back(&desk, &left);
    CHECK(descriptors() == desk.descriptors + 1 && right.data[0] == 7);
    give_back(&desk, &right);
    CHECK(descriptors() == desk.descriptors);
    close_desk(&desk);
}

TEST(a_file_is_mapped_from_any_offset)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    const size_t offsets[] = {0, 8, page - 8, page, page + 16, 3 * page};
    const size_t sizes[] = {8, page, 2 * page - 8};
    static const struct {
        tether_pages_t kind;
        bool write;
        const char *rights;
    } modes[] = {{TETHER_PAGES_SHARED, false, "r--s"}, {TETHER_PAGES_SHARED, true, "rw-s"}, {TETHER_PAGES_COPY, true, "rw-p"}};
    for (int i = 0; i < 6; i++) {
        for (int j = 0; j < 9; j++) {
            int fd = file_of(&desk, 6);
            tether_region_t r;
            size_t offset = offsets[i], size = sizes[j / 3];
            CHECK(tether_region_map_file(&r, desk.host.rt, fd, offset, size, modes[j % 3].kind, modes[j % 3].write) == 0);
            close(fd);
            CHECK(r.lead == offset % page && r.data == r.base + r.lead && r.nbytes == size);
            CHECK(r.mapped == (r.lead + size + page - 1) / page * page && counted(&desk, 1, r.mapped));
            CHECK(all_have(&desk, r.base, r.mapped, modes[j % 3].rights));
            CHECK(is_offset(r.data, offset) && is_offset(r.data + size - 8, offset + size - 8));
            give_back(&desk, &r);
        }
    }
    close_desk(&desk);
}

TEST(a_private_copy_leaves_the_file_as_it_is)
{
    desk_t desk;
    open_desk(&desk);
    int fd = file_of(&desk, 2);
    tether_region_t copy, shared;
    CHECK(tether_region_map_file(&copy, desk.host.rt, fd, 16, 100, TETHER_PAGES_COPY, true) == 0);
    CHECK(tether_region_map_file(&shared, desk.host.rt, fd, 16, 100, TETHER_PAGES_SHARED, true) == 0);
    memset(copy.data, 1, 100);
    CHECK(is_offset(shared.data, 16));
    memset(shared.data, 2, 100);
    char byte = 0;
    CHECK(pread(fd, &byte, 1, 115) == 1 && byte == 2 && copy.data[99] == 1);
    close(fd);
    give_back(&desk, &copy);
    give_back(&desk, &shared);
    close_desk(&desk);
}

TEST(a_mapping_that_fails_leaves_nothing)
{
    desk_t desk;
    open_desk(&desk);
    tether_region_t r;
    tether_runtime_t *rt = desk.host.rt;
    const size_t sizes[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 2 - desk.page, (size_t)1 << 62};
    for (int i = 0; i < 4; i++) {
        CHECK(tether_region_map(&r, rt, sizes[i], false) == ENOMEM);
        CHECK(tether_region_map(&r, rt, sizes[i], true) == ENOMEM);
        CHECK(tether_region_map_shared(&r, rt, sizes[i], "x") != 0);
        CHECK(tether_region_map_file(&r, rt, -1, desk.page - 1, sizes[i], TETHER_PAGES_SHARED, false) != 0);
    }
    CHECK(tether_region_map_file(&r, rt, -1, 0, 1, TETHER_PAGES_SHARED, false) == EBADF);
    int closed_to_writers = open("/dev/null", O_RDONLY);
    CHECK(tether_region_map_file(&r, rt, closed_to_writers, 0, 1, TETHER_PAGES_SHARED, true) != 0);
    close(closed_to_writers);
    tether_fail_nth(TETHER_FAIL_PAGES, 1);
    CHECK(tether_region_map(&r, rt, 1, false) == ENOMEM);
    tether_fail_nth(TETHER_FAIL_PAGES, 1);
    CHECK(tether_region_map_shared(&r, rt, 1, "x") == ENOMEM);
    tether_fail_nth(TETHER_FAIL_ALLOC, 1);
    CHECK(tether_region_map_shared(&r, rt, 1, "x") == ENOMEM);
    CHECK(descriptors() == desk.descriptors);
    close_desk(&desk);
}

/* ---- cutting and merging ----------------------------------------------------------------------------------------- */

TEST(a_region_is_cut_inside_of_it_on_a_page_of_the_mapping)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t own, file;
    map_own(&desk, &own, 3 * page + 1);
    int fd = file_of(&desk, 4);
    CHECK(tether_region_map_file(&file, desk.host.rt, fd, page + 24, 2 * page, TETHER_PAGES_COPY, true) == 0);
    close(fd);
    for (size_t at = 0; at < 4 * page; at++) {
        CHECK(tether_region_may_cut(&own, at) == (at == page || at == 2 * page || at == 3 * page));
        CHECK(tether_region_may_cut(&file, at) == (at == page - 24 || at == 2 * page - 24));
    }
    CHECK(!tether_region_may_cut(&own, SIZE_MAX) && !tether_region_may_cut(&own, (size_t)1 << 63));
    tether_region_t left, right;
    CHECK(seize(&desk, &file) && tether_region_cut(&file, page - 24, &left, &right) == 0);
    CHECK(left.lead == 24 && left.nbytes == page - 24 && right.lead == 0 && right.nbytes == page + 24);
    CHECK(is_offset(left.data, page + 24) && is_offset(right.data, 2 * page));
    CHECK(!tether_region_may_cut(&left, page - 48) && tether_region_may_cut(&right, page));
    CHECK(file.base == NULL && !seize(&desk, &file));
    give_back(&desk, &own);
    give_back(&desk, &left);
    give_back(&desk, &right);
    close_desk(&desk);
}

TEST(parts_that_are_merged_are_what_was_cut)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r, a, rest, b, c, ab, all;
    map_own(&desk, &r, 3 * page - 5);
    char *base = r.base;
    for (size_t at = 0; at < r.nbytes; at++)
        r.data[at] = (char)(at / 7);
    CHECK(seize(&desk, &r) && tether_region_cut(&r, page, &a, &rest) == 0 && counted(&desk, 2, 3 * page));
    CHECK(seize(&desk, &rest) && tether_region_cut(&rest, page, &b, &c) == 0 && counted(&desk, 3, 3 * page));
    CHECK(!tether_region_may_merge(&a, &c) && !tether_region_may_merge(&b, &a) && !tether_region_may_merge(&a, &a));
    CHECK(tether_region_may_merge(&a, &b) && tether_region_may_merge(&b, &c));
    CHECK(seize(&desk, &a) && seize(&desk, &b) && tether_region_merge(&a, &b, &ab) == 0);
    CHECK(a.base == NULL && b.base == NULL && ab.nbytes == 2 * page && counted(&desk, 2, 3 * page));
    CHECK(tether_region_may_merge(&ab, &c) && seize(&desk, &ab) && seize(&desk, &c) && tether_region_merge(&ab, &c, &all) == 0);
    CHECK(all.base == base && all.nbytes == 3 * page - 5 && all.mapped == 3 * page && counted(&desk, 1, 3 * page));
    for (size_t at = 0; at < all.nbytes; at++)
        CHECK(all.data[at] == (char)(at / 7));
    give_back(&desk, &all);
    close_desk(&desk);
}

TEST(what_was_not_cut_from_one_mapping_or_has_other_rights_is_not_merged)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r, left, right;
    map_own(&desk, &r, 2 * page);
    CHECK(seize(&desk, &r) && tether_region_cut(&r, page, &left, &right) == 0);
    CHECK(seize(&desk, &right) && tether_region_protect(&right, TETHER_ACCESS_READ) == 0);
    CHECK(!tether_region_may_merge(&left, &right));
    CHECK(tether_region_protect(&right, TETHER_ACCESS_WRITE) == 0);
    CHECK(tether_region_may_merge(&left, &right));
    let_go(&desk, &right);
    char *there = right.base;
    give_back(&desk, &right);
    /* The same address, another mapping. */
    tether_region_t other;
    map_own(&desk, &other, page);
    if (mremap(other.base, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, there) == there) {
        other.base = other.data = there;
        CHECK(left.base + left.mapped == other.base && !tether_region_may_merge(&left, &other));
    }
    give_back(&desk, &left);
    give_back(&desk, &other);
    close_desk(&desk);
}

/* In the place of what is gone comes something else's mapping: no end of another part touches it. */
TEST(each_part_is_unmapped_once_and_alone)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    for (int first = 0; first < 3; first++) {
        tether_region_t r, rest, parts[3];
        map_own(&desk, &r, 3 * page);
        CHECK(seize(&desk, &r) && tether_region_cut(&r, page, &parts[0], &rest) == 0);
        CHECK(seize(&desk, &rest) && tether_region_cut(&rest, page, &parts[1], &parts[2]) == 0);
        char *at = parts[first].base;
        give_back(&desk, &parts[first]);
        for (int i = 0; i < 3; i++)
            CHECK(i == first || has(parts[i].base, "rw-p"));
        char *others = mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        CHECK(others == at);
        for (int i = 0; i < 3; i++)
            if (i != first)
                give_back(&desk, &parts[i]);
        CHECK(has(others, "r--p"));
        munmap(others, page);
    }
    close_desk(&desk);
}

TEST(parts_by_number_cover_all_and_differ_by_a_unit)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r;
    map_own(&desk, &r, 200 * page + 17);
    const struct {
        size_t start, stop, n, unit;
    } cases[] = {{0, 200 * page + 17, 3, page}, {0, 200 * page + 17, 4, 1}, {0, 10, 3, 1},         {5, 5, 4, 1},
                 {0, 3, 7, 1},                  {page, 129 * page, 2, page}, {1, 150 * page, 2, 1}, {0, 200 * page, 1, page}};
    for (int i = 0; i < 8; i++) {
        size_t start = cases[i].start, stop = cases[i].stop, n = cases[i].n, least = SIZE_MAX, greatest = 0;
        CHECK(tether_region_part(&r, start, stop, 0, n) == start && tether_region_part(&r, start, stop, n, n) == stop);
        for (size_t k = 0; k < n; k++) {
            size_t from = tether_region_part(&r, start, stop, k, n), to = tether_region_part(&r, start, stop, k + 1, n);
            CHECK(from <= to && (k == 0 || (from - start) % cases[i].unit == 0));
            size_t size = k == n - 1 ? (to - from) / cases[i].unit * cases[i].unit : to - from;
            least = size < least ? size : least;
            greatest = size > greatest ? size : greatest;
        }
        CHECK(greatest - least <= cases[i].unit);
    }
    give_back(&desk, &r);
    close_desk(&desk);
}

/* ---- rights ------------------------------------------------------------------------------------------------------ */

TEST(protect_takes_and_gives_the_right_to_write)
{
    desk_t desk;
    open_desk(&desk);
    tether_region_t r;
    map_own(&desk, &r, 2 * desk.page);
    r.data[3] = 9;
    CHECK(seize(&desk, &r));
    CHECK(tether_region_protect(&r, TETHER_ACCESS_READ) == 0);
    CHECK(r.access == TETHER_ACCESS_READ && all_have(&desk, r.base, r.mapped, "r--p") && r.data[3] == 9);
    tether_fail_nth(TETHER_FAIL_PAGES, 1); /* fault 15 */
    CHECK(tether_region_protect(&r, TETHER_ACCESS_WRITE) == ENOMEM);
    CHECK(r.access == TETHER_ACCESS_READ && all_have(&desk, r.base, r.mapped, "r--p"));
    CHECK(tether_region_protect(&r, TETHER_ACCESS_WRITE) == 0);
    r.data[3] = 10;
    let_go(&desk, &r);
    give_back(&desk, &r);
    close_desk(&desk);
}

static void pages_are(const tether_region_t *r, size_t page, const char *first, const char *second, const char *third)
{
    CHECK(has(r->base, first));
    CHECK(has(r->base + page, second));
    CHECK(has(r->base + 2 * page, third));
}

TEST(a_shield_opens_what_is_lent_as_far_as_it_is)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r;
    map_own(&desk, &r, 3 * page);
    CHECK(tether_region_shield(&r) == 0);
    pages_are(&r, page, "---p", "---p", "---p");
    CHECK(!readable(r.data));
    tether_loan_t reads = reading(10, page + 1), writes = writing(page + 1, page + 2), empty = writing(2 * page, 2 * page);
    CHECK(borrow(&desk.host, &r.book, &reads) == TETHER_OK);
    pages_are(&r, page, "r--p", "r--p", "---p");
    CHECK(readable(r.data + 10));
    CHECK(borrow(&desk.host, &r.book, &writes) == TETHER_OK); /* beside the reader, on one page: the stronger */
    CHECK(borrow(&desk.host, &r.book, &empty) == TETHER_OK);
    pages_are(&r, page, "r--p", "rw-p", "---p");
    r.data[page + 1] = 5;
    CHECK(tether_loan_view(&writes) == TETHER_OK && tether_loan_end(&writes, true) == TETHER_OK);
    pages_are(&r, page, "r--p", "rw-p", "---p"); /* G14: it is viewed */
    forget(&desk.host, &reads);
    pages_are(&r, page, "---p", "rw-p", "---p");
    tether_loan_unview(&writes);
    pages_are(&r, page, "---p", "---p", "---p");
    forget(&desk.host, &writes);
    forget(&desk.host, &empty);
    CHECK(seize(&desk, &r));
    pages_are(&r, page, "rw-p", "rw-p", "rw-p");
    CHECK(tether_region_protect(&r, TETHER_ACCESS_READ) == 0);
    let_go(&desk, &r);
    CHECK(borrow(&desk.host, &r.book, &reads) == TETHER_OK);
    pages_are(&r, page, "r--p", "r--p", "---p");
    forget(&desk.host, &reads);
    give_back(&desk, &r);
    close_desk(&desk);
}

TEST(a_shield_knows_where_an_unaligned_file_begins)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    int fd = file_of(&desk, 4);
    tether_region_t r;
    CHECK(tether_region_map_file(&r, desk.host.rt, fd, page - 8, page + 16, TETHER_PAGES_COPY, true) == 0);
    close(fd);
    CHECK(r.mapped == 3 * page && tether_region_shield(&r) == 0);
    tether_loan_t first = reading(0, 8), second = writing(8, 9), last = writing(page + 8, page + 16);
    CHECK(borrow(&desk.host, &r.book, &first) == TETHER_OK);
    pages_are(&r, page, "r--p", "---p", "---p");
    CHECK(borrow(&desk.host, &r.book, &second) == TETHER_OK);
    pages_are(&r, page, "r--p", "rw-p", "---p");
    CHECK(borrow(&desk.host, &r.book, &last) == TETHER_OK);
    pages_are(&r, page, "r--p", "rw-p", "rw-p");
    forget(&desk.host, &second);
    pages_are(&r, page, "r--p", "---p", "rw-p");
    forget(&desk.host, &first);
    forget(&desk.host, &last);
    pages_are(&r, page, "---p", "---p", "---p");
    give_back(&desk, &r);
    close_desk(&desk);
}

TEST(halves_of_a_shielded_region_are_closed_and_so_is_their_merger)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r, left, right, whole;
    map_own(&desk, &r, 3 * page);
    CHECK(tether_region_shield(&r) == 0);
    CHECK(seize(&desk, &r));
    tether_fail_nth(TETHER_FAIL_PAGES, 1); /* fault 15 */
    CHECK(tether_region_cut(&r, page, &left, &right) == ENOMEM && counted(&desk, 1, 3 * page));
    CHECK(tether_region_cut(&r, page, &left, &right) == 0);
    char *base = left.base;
    CHECK(all_have(&desk, base, 3 * page, "---p"));
    tether_loan_t loan = writing(0, 1);
    CHECK(borrow(&desk.host, &right.book, &loan) == TETHER_OK);
    CHECK(has(base, "---p") && has(base + page, "rw-p") && has(base + 2 * page, "---p"));
    CHECK(!seize(&desk, &right)); /* lent */
    forget(&desk.host, &loan);
    CHECK(seize(&desk, &left) && seize(&desk, &right));
    tether_fail_nth(TETHER_FAIL_PAGES, 2);
    CHECK(tether_region_merge(&left, &right, &whole) == ENOMEM && counted(&desk, 2, 3 * page));
    CHECK(tether_region_merge(&left, &right, &whole) == 0);
    CHECK(all_have(&desk, base, 3 * page, "---p"));
    give_back(&desk, &whole);
    close_desk(&desk);
}

TEST(a_shield_that_fails_lends_nothing)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r;
    map_own(&desk, &r, 3 * page);
    tether_fail_nth(TETHER_FAIL_PAGES, 1); /* fault 15 */
    CHECK(tether_region_shield(&r) == ENOMEM && r.book.shield == NULL && all_have(&desk, r.base, r.mapped, "rw-p"));
    CHECK(tether_region_shield(&r) == 0);
    tether_loan_t a = writing(0, 1), b = writing(page, page + 1), *both[] = {&a, &b};
    for (int nth = 1; nth <= 2; nth++) {
        tether_fail_nth(TETHER_FAIL_PAGES, nth);
        CHECK(tether_borrow(desk.thread, &r.book, both, 2, NULL, NULL) == TETHER_NO_MEMORY);
        CHECK(a.state == TETHER_LOAN_NEW && b.state == TETHER_LOAN_NEW && r.book.lent.root.n == 0);
        pages_are(&r, page, "---p", "---p", "---p");
    }
    tether_claim_t claim;
    tether_fail_nth(TETHER_FAIL_PAGES, 1);
    CHECK(tether_borrow_queue(desk.thread, &r.book, &claim, &a) == TETHER_NO_MEMORY);
    tether_fail_nth(TETHER_FAIL_PAGES, 1);
    CHECK(!seize(&desk, &r) && !load_relaxed(&r.seized));
    pages_are(&r, page, "---p", "---p", "---p");
    give_back(&desk, &r);
    close_desk(&desk);
}

/* The handed over loan's pages cannot be opened: its waiter is told, and they are closed as before. */
TEST(a_shield_that_fails_at_a_grant_leaves_the_pages_closed)
{
    desk_t desk;
    open_desk(&desk);
    size_t page = desk.page;
    tether_region_t r;
    map_own(&desk, &r, 3 * page);
    CHECK(tether_region_shield(&r) == 0);
    tether_loan_t held = writing(0, page), wants = writing(0, 3 * page), reads = reading(page, page + 1);
    tether_claim_t claim;
    CHECK(borrow(&desk.host, &r.book, &held) == TETHER_OK && borrow(&desk.host, &r.book, &reads) == TETHER_OK);
    CHECK(tether_borrow_queue(desk.thread, &r.book, &claim, &wants) == TETHER_CONFLICT);
    forget(&desk.host, &reads);
    tether_fail_nth(TETHER_FAIL_PAGES, 2); /* the first closes what was held */
    forget(&desk.host, &held);
    tether_wait_t how = {.deadline = TETHER_FOREVER};
    CHECK(tether_borrow_wait(desk.thread, &claim, &how) == TETHER_NO_MEMORY);
    CHECK(tether_borrow_leave(&claim, NULL, NULL) == TETHER_NO_MEMORY);
    pages_are(&r, page, "---p", "---p", "---p");
    give_back(&desk, &r);
    close_desk(&desk);
}

/* ---- in a child -------------------------------------------------------------------------------------------------- */

static int child(void (*act)(desk_t *desk, tether_region_t *r), desk_t *desk, tether_region_t *r)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, SIG_DFL);
        act(desk, r);
        _exit(atomic_load(&harness_failures) != 0);
    }
    int status = -1;
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static size_t address_space(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%lu", &pages) == 1);
    fclose(file);
    return pages * tether_page_size();
}

static void use_up(desk_t *desk, tether_region_t *unused)
{
    (void)unused;
    enum { MOST = 64 };
    static tether_region_t all[MOST];
    size_t size = (size_t)16 << 20;
    struct rlimit limit = {.rlim_cur = address_space() + ((size_t)256 << 20), .rlim_max = RLIM_INFINITY};
    CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
    int n = 0, error = 0;
    while (n < MOST && (error = tether_region_map(&all[n], desk->host.rt, size, false)) == 0)
        n++;
    CHECK(error == ENOMEM && n > 0 && counted(desk, (uint32_t)n, n * size));
    tether_region_t more;
    CHECK(tether_region_map_shared(&more, desk->host.rt, size, "more") == ENOMEM);
    CHECK(tether_region_map(&more, desk->host.rt, size, true) == ENOMEM);
    CHECK(counted(desk, (uint32_t)n, n * size) && descriptors() == desk->descriptors);
    while (n > 0)
        give_back(desk, &all[--n]);
    CHECK(counted(desk, 0, 0));
    map_own(desk, &more, size);
    give_back(desk, &more);
}

TEST(address_space_that_is_used_up_is_an_error_and_comes_back)
{
    desk_t desk;
    open_desk(&desk);
    int status = child(use_up, &desk, NULL); /* fault 15 */
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close_desk(&desk);
}

static void write_stray(desk_t *desk, tether_region_t *r)
{
    (void)desk;
    *(volatile char *)(r->data + 1) = 1;
}

static void read_stray(desk_t *desk, tether_region_t *r)
{
    *(volatile char *)(r->data + 2 * desk->page);
}

static void read_rightly(desk_t *desk, tether_region_t *r)
{
    (void)desk;
    CHECK(*(volatile char *)(r->data + 1) == 0);
}

TEST(a_stray_access_to_a_shielded_page_ends_the_process)
{
    desk_t desk;
    open_desk(&desk);
    tether_region_t r;
    map_own(&desk, &r, 3 * desk.page);
    CHECK(tether_region_shield(&r) == 0);
    tether_loan_t reads = reading(0, 10);
    CHECK(borrow(&desk.host, &r.book, &reads) == TETHER_OK);
    int status = child(write_stray, &desk, &r);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = child(read_stray, &desk, &r);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    status = child(read_rightly, &desk, &r);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    forget(&desk.host, &reads);
    give_back(&desk, &r);
    close_desk(&desk);
}

/* ---- all at once ------------------------------------------------------------------------------------------------- */

TEST(a_region_is_seized_while_nothing_is_lent_or_waited_for)
{
    desk_t desk;
    open_desk(&desk);
    tether_region_t r;
    map_own(&desk, &r, desk.page);
    tether_loan_t loan = reading(3, 4), late = reading(5, 6);
    CHECK(borrow(&desk.host, &r.book, &loan) == TETHER_OK);
    CHECK(!seize(&desk, &r)); /* fault 18 */
    forget(&desk.host, &loan);
    CHECK(seize(&desk, &r) && !seize(&desk, &r));
    CHECK(borrow(&desk.host, &r.book, &loan) == TETHER_CONFLICT);
    tether_claim_t claim;
    CHECK(tether_borrow_queue(desk.thread, &r.book, &claim, &late) == TETHER_CONFLICT);
    let_go(&desk, &r);
    tether_wait_t how = {.deadline = TETHER_FOREVER};
    CHECK(tether_borrow_wait(desk.thread, &claim, &how) == TETHER_OK);
    forget(&desk.host, &late);
    give_back(&desk, &r);
    close_desk(&desk);
}

enum { CROWD = 4, ROUNDS = SCALE(300, 60) };

typedef struct {
    desk_t *desk;
    tether_region_t *r;
    pthread_barrier_t *begin;
    _Atomic int *closers;
    size_t number;
} member_t;

static void touch(tether_region_t *r, const tether_loan_t *loan)
{
    for (size_t at = loan->start; at < loan->stop; at++)
        r->data[at]++;
}

static void *borrow_until_shut(void *arg)
{
    member_t *m = arg;
    host_t *host = &m->desk->host;
    pthread_barrier_wait(m->begin);
    host_attach(host);
    tether_status_t status = TETHER_OK;
    for (size_t i = 0; status == TETHER_OK; i++) {
        size_t start = (i * 7 + m->number * 3) % 50;
        tether_loan_t loan = writing(start, start + 10);
        while (i % 20 == 19 && !load_acquire(&m->r->seized)) /* room for those who close, and then into their arms */
            host_yield(host);
        status = borrow_in_the_end(host, &m->r->book, &loan);
        if (status == TETHER_OK) {
            touch(m->r, &loan);
            forget(host, &loan);
        }
    }
    CHECK(status == TETHER_CLOSED);
    host_detach(host);
    return NULL;
}

static void *close_it(void *arg)
{
    member_t *m = arg;
    host_t *host = &m->desk->host;
    pthread_barrier_wait(m->begin);
    host_attach(host);
    tether_thread_t *thread = host_thread(host);
    while (atomic_load(m->closers) == 0) {
        if (tether_region_seize(thread, m->r, NULL, NULL) == TETHER_OK) {
            CHECK(tether_region_unmap(m->r) == 0);
            atomic_fetch_add(m->closers, 1);
            tether_book_shut(&m->r->book);
            break;
        }
        host_yield(host);
    }
    host_detach(host);
    return NULL;
}

TEST(a_region_closed_beside_borrowers_goes_once_and_all_of_them_are_told)
{
    desk_t desk;
    open_desk(&desk);
    for (int round = 0; round < ROUNDS; round++) {
        tether_region_t r;
        map_own(&desk, &r, desk.page);
        if (round % 3 == 0)
            CHECK(tether_region_shield(&r) == 0);
        pthread_barrier_t begin;
        pthread_barrier_init(&begin, NULL, CROWD);
        pthread_t threads[CROWD];
        member_t members[CROWD];
        _Atomic int closers = 0;
        for (size_t i = 0; i < CROWD; i++) {
            members[i] = (member_t){&desk, &r, &begin, &closers, i};
            pthread_create(&threads[i], NULL, i < 2 ? close_it : borrow_until_shut, &members[i]);
        }
        for (int i = 0; i < CROWD; i++)
            pthread_join(threads[i], NULL);
        pthread_barrier_destroy(&begin);
        CHECK(atomic_load(&closers) == 1 && r.base == NULL && counted(&desk, 0, 0));
    }
    close_desk(&desk);
}
