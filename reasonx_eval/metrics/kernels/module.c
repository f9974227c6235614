/* The Python side: numpy arrays in, numbers out. Each call gives up the interpreter's lock while it works.
 *
 * A function returns None where the form in numpy must be taken: an array of another type or layout, or values that
 * end the pass (see maps.h).
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "maps.h"

#include <float.h>
#include <string.h>

#if !defined(__x86_64__)
#error "these kernels are written for x86-64: the forms in numpy are used elsewhere"
#endif

enum { PRED, TARGET, VALID, BUFFERS };

typedef struct {
    Py_buffer buffer[BUFFERS];
    int held;
    pair_of_maps maps;
} arrays;

static void let_go(arrays *a) {
    while (a->held > 0) PyBuffer_Release(&a->buffer[--a->held]);
}

static int has_format(const Py_buffer *b, const char *format, Py_ssize_t itemsize) {
    return b->format && strcmp(b->format, format) == 0 && b->itemsize == itemsize;
}

/* 1 for float64, 0 for float32, -1 for others. */
static int width_of(const Py_buffer *b) {
    if (has_format(b, "d", 8)) return 1;
    return has_format(b, "f", 4) ? 0 : -1;
}

/* Whether a buffer is [H, W, ...] with `ndim` axes, the last ones contiguous, and every item at a multiple of its size. */
static int is_map(const Py_buffer *b, int ndim) {
    if (b->ndim != ndim || (uintptr_t)b->buf % (size_t)b->itemsize || b->strides[0] % b->itemsize) return 0;
    if (ndim == 3 && (b->shape[2] != 3 || b->strides[2] != b->itemsize)) return 0;
    return b->strides[1] == b->itemsize * (ndim == 3 ? 3 : 1);
}

/* Holds the buffers of two maps and their mask. 0: not of a kind that the kernels take; -1: an error is set. */
static int hold(PyObject *const *objects, int ndim, arrays *a) {
    a->held = 0;
    for (int k = 0; k < BUFFERS; k++) {
        if (PyObject_GetBuffer(objects[k], &a->buffer[k], PyBUF_STRIDED_RO | PyBUF_FORMAT) < 0) {
            let_go(a);
            return -1;
        }
        a->held++;
    }
    const Py_buffer *p = &a->buffer[PRED], *g = &a->buffer[TARGET], *v = &a->buffer[VALID];
    int fits = is_map(p, ndim) && is_map(g, ndim) && is_map(v, 2) && width_of(p) >= 0 && width_of(g) >= 0
               && has_format(v, "?", 1) && p->shape[0] == v->shape[0] && p->shape[1] == v->shape[1]
               && g->shape[0] == v->shape[0] && g->shape[1] == v->shape[1];
    if (!fits) {
        let_go(a);
        return 0;
    }
    a->maps = (pair_of_maps){
        {p->buf, p->strides[0], width_of(p)}, {g->buf, g->strides[0], width_of(g)},
        v->buf, v->strides[0], v->shape[0], v->shape[1],
    };
    return 1;
}

static PyObject *py_depth_moments(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[BUFFERS];
    int disparity;
    if (!PyArg_ParseTuple(args, "OOOp", &objects[PRED], &objects[TARGET], &objects[VALID], &disparity)) return NULL;
    arrays a;
    int held = hold(objects, 2, &a), status;
    if (held <= 0) return held < 0 ? NULL : Py_NewRef(Py_None);
    moments m = {0};
    Py_BEGIN_ALLOW_THREADS status = depth_moments(&a.maps, disparity, &m);
    Py_END_ALLOW_THREADS let_go(&a);
    if (status != CLEAN) return Py_NewRef(Py_None);
    return Py_BuildValue("Ldddd", (long long)m.n, m.pred_mean, m.target_mean, m.pred_square, m.product);
}

static PyObject *py_depth_errors(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[BUFFERS];
    alignment fit;
    if (!PyArg_ParseTuple(args, "OOOddpddd", &objects[PRED], &objects[TARGET], &objects[VALID], &fit.scale, &fit.shift,
                          &fit.disparity, &fit.disparity_floor, &fit.low, &fit.high))
        return NULL;
    arrays a;
    int held = hold(objects, 2, &a), status;
    if (held <= 0) return held < 0 ? NULL : Py_NewRef(Py_None);
    depth_sums s = {0};
    Py_BEGIN_ALLOW_THREADS status = depth_errors(&a.maps, &fit, &s);
    Py_END_ALLOW_THREADS let_go(&a);
    if (status != CLEAN) return Py_NewRef(Py_None);
    return Py_BuildValue("LddddddddLLL", (long long)s.n, s.abs, s.square, s.relative, s.relative_square,
                         s.inverse_square, s.abs_log, s.log_mean, s.log_spread, (long long)s.within[0],
                         (long long)s.within[1], (long long)s.within[2]);
}

/* A contiguous vector of one format of eight bytes, of at least `least` items. NULL with an error set if it isn't. */
static void *vector(PyObject *object, const char *format, Py_ssize_t least, int writable, Py_buffer *b) {
    if (PyObject_GetBuffer(object, b, PyBUF_ND | PyBUF_FORMAT | (writable ? PyBUF_WRITABLE : 0)) < 0) return NULL;
    if (b->ndim == 1 && has_format(b, format, 8) && b->shape[0] >= least && (uintptr_t)b->buf % 8 == 0) return b->buf;
    PyErr_Format(PyExc_ValueError, "expected a contiguous vector of '%s' with at least %zd items", format, least);
    PyBuffer_Release(b);
    return NULL;
}

/* Whether the number of the bin of every value in [low, high] lies in [0, count). -1: an error is set. */
static int check_bins(const bin_range *bins) {
    double range = bins->high - bins->low;
    if (range >= 0 && range < DBL_MAX && bins->factor > 0 && bins->factor < DBL_MAX && bins->count > 0
        && bins->count < INT32_MAX && range * bins->factor < (double)bins->count)
        return 0;
    PyErr_SetString(PyExc_ValueError, "bins need low <= high, a positive finite factor, and a count above "
                                      "(high - low) * factor and below 2^31 - 1");
    return -1;
}

/* A histogram of these bins, from None or a vector of counts. -1: an error is set. */
static int histogram_of(PyObject *object, const bin_range *bins, Py_buffer *b, int64_t **counts) {
    *counts = NULL;
    if (check_bins(bins) < 0) return -1;
    if (object == Py_None) return 0;
    *counts = vector(object, "l", (Py_ssize_t)bins->count + 1, 1, b);
    return *counts ? 0 : -1;
}

static PyObject *py_angles_between(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *objects[BUFFERS], *to;
    if (!PyArg_ParseTuple(args, "OOOO", &objects[PRED], &objects[TARGET], &objects[VALID], &to)) return NULL;
    arrays a;
    int held = hold(objects, 3, &a), status;
    if (held <= 0) return held < 0 ? NULL : Py_NewRef(Py_None);
    Py_buffer out;
    double *angles = vector(to, "d", 1, 1, &out);
    if (!angles) {
        let_go(&a);
        return NULL;
    }
    int64_t count = 0;
    Py_BEGIN_ALLOW_THREADS status = angles_between(&a.maps, angles, out.shape[0], &count);
    Py_END_ALLOW_THREADS PyBuffer_Release(&out);
    let_go(&a);
    return status == CLEAN ? PyLong_FromLongLong(count) : Py_NewRef(Py_None);
}

static PyObject *py_sum_angles(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *from, *histogram;
    double limits[LIMITS];
    bin_range bins = {0};
    if (!PyArg_ParseTuple(args, "O(ddddd)(dddL)O", &from, &limits[0], &limits[1], &limits[2], &limits[3], &limits[4],
                          &bins.low, &bins.high, &bins.factor, &bins.count, &histogram))
        return NULL;
    Py_buffer values, counts;
    double *angles = vector(from, "d", 0, 0, &values);
    if (!angles) return NULL;
    int64_t *counted;
    if (histogram_of(histogram, &bins, &counts, &counted) < 0) {
        PyBuffer_Release(&values);
        return NULL;
    }
    angle_sums s = {0};
    Py_BEGIN_ALLOW_THREADS sum_angles(angles, values.shape[0], limits, &bins, counted, &s);
    Py_END_ALLOW_THREADS PyBuffer_Release(&values);
    if (counted) PyBuffer_Release(&counts);
    return Py_BuildValue("dd(LLLLL)", s.sum, s.square, (long long)s.within[0], (long long)s.within[1],
                         (long long)s.within[2], (long long)s.within[3], (long long)s.within[4]);
}

static PyObject *py_count_bins(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *from, *histogram;
    bin_range bins = {0};
    if (!PyArg_ParseTuple(args, "O(dddL)O", &from, &bins.low, &bins.high, &bins.factor, &bins.count, &histogram))
        return NULL;
    Py_buffer values, counts;
    double *numbers = vector(from, "d", 0, 0, &values);
    if (!numbers) return NULL;
    int64_t *counted;
    if (histogram_of(histogram, &bins, &counts, &counted) < 0) {
        PyBuffer_Release(&values);
        return NULL;
    }
    if (counted) {
        Py_BEGIN_ALLOW_THREADS count_bins(numbers, values.shape[0], &bins, counted);
        Py_END_ALLOW_THREADS PyBuffer_Release(&counts);
    }
    PyBuffer_Release(&values);
    return Py_NewRef(Py_None);
}

static PyObject *py_take_bins(PyObject *self, PyObject *args) {
    (void)self;
    PyObject *from, *to;
    long long first, last;
    bin_range bins = {0};
    if (!PyArg_ParseTuple(args, "O(dddL)LLO", &from, &bins.low, &bins.high, &bins.factor, &bins.count, &first, &last,
                          &to)
        || check_bins(&bins) < 0)
        return NULL;
    Py_buffer values, out;
    double *numbers = vector(from, "d", 0, 0, &values);
    if (!numbers) return NULL;
    double *taken = vector(to, "d", 0, 1, &out);
    if (!taken) {
        PyBuffer_Release(&values);
        return NULL;
    }
    int64_t n;
    Py_BEGIN_ALLOW_THREADS n = take_bins(numbers, values.shape[0], &bins, first, last, taken, out.shape[0]);
    Py_END_ALLOW_THREADS PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    if (n >= 0) return PyLong_FromLongLong(n);
    PyErr_SetString(PyExc_ValueError, "there are more values in these bins than room");
    return NULL;
}

static PyMethodDef methods[] = {
    {"depth_moments", py_depth_moments, METH_VARARGS, "Moments of a least-squares fit; see kernels/__init__.py."},
    {"depth_errors", py_depth_errors, METH_VARARGS, "Sums of every depth metric; see kernels/__init__.py."},
    {"angles_between", py_angles_between, METH_VARARGS, "Angles between two maps of vectors; see kernels/__init__.py."},
    {"sum_angles", py_sum_angles, METH_VARARGS, "Sums, shares and histogram of angles; see kernels/__init__.py."},
    {"count_bins", py_count_bins, METH_VARARGS, "Adds values to a histogram; see kernels/__init__.py."},
    {"take_bins", py_take_bins, METH_VARARGS, "The values of some bins; see kernels/__init__.py."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "reasonx_eval.metrics.kernels._compiled",
    .m_doc = "Depth and normals in fused passes. Used through reasonx_eval.metrics.kernels.",
    .m_size = 0,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__compiled(void) {
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
        PyErr_SetString(PyExc_ImportError, "the kernels need AVX2 and FMA: the forms in numpy are used");
        return NULL;
    }
    return PyModule_Create(&definition);
}
